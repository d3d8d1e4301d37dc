# Sourced: the environment in which cargo runs the programs it builds for Windows under Wine.
# shellcheck shell=bash
export WINEPREFIX="${XDG_CACHE_HOME:-$HOME/.cache}/mmf-windows/prefix" WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml="
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=wine
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
unset DISPLAY WAYLAND_DISPLAY

# One server for the whole run, which ends by itself when it has had no client for ten minutes. Else the first
# program starts it and lends it its stdout, and whoever reads that waits for the server's end.
wine_up() {
    wineserver -p600 >/dev/null 2>&1 </dev/null || true
    wine cmd /c exit >/dev/null 2>&1 </dev/null
}
