#!/usr/bin/env bash
# Makes ready what runs Windows programs here: Wine and a prefix of its own in the user's cache. Leaves what is
# ready alone. On Debian 12, whose Wine 8 it makes up for.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

root=${XDG_CACHE_HOME:-$HOME/.cache}/mmf-windows
packages gcc-mingw-w64-x86-64 wine64 wine
mkdir -p "$root"
exec 9>"$root/lock"
flock 9

# Rust's std takes its random numbers from `ProcessPrng` of bcryptprimitives.dll, which Wine has from 9 on.
if [ ! -s "$root/bcryptprimitives.dll" ]; then
    x86_64-w64-mingw32-gcc -O2 -shared -s -o "$root/bcryptprimitives.new" -x c - -ladvapi32 <<'C'
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG); /* RtlGenRandom */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size)
{
    while (size > 0) {
        ULONG part = size < 0x10000 ? (ULONG)size : 0x10000;
        if (!SystemFunction036(data, part))
            return FALSE;
        data += part;
        size -= part;
    }
    return TRUE;
}
C
    mv "$root/bcryptprimitives.new" "$root/bcryptprimitives.dll"
fi

. ci/wine.sh
[ ! -e "$WINEPREFIX/.ready-1" ] || exit 0
exec 3>&2 >"$root/setup.log" 2>&1 </dev/null
trap 'echo "no Wine prefix: see $root/setup.log" >&3' ERR
rm -rf "$WINEPREFIX"
wineboot -i
wine winecfg -v win10
# Without this, winedbg looks at each process that dies of an exception: slow, noisy, and it crashes itself.
debugger='HKLM\Software\Microsoft\Windows NT\CurrentVersion\AeDebug'
wine reg add "$debugger" /v Debugger /t REG_SZ /d false /f
wine reg add "$debugger" /v Auto /t REG_SZ /d 0 /f
wine reg add 'HKCU\Software\Wine\WineDbg' /v ShowCrashDialog /t REG_DWORD /d 0 /f
system="$WINEPREFIX/drive_c/windows/system32"
[ -e "$system/bcryptprimitives.dll" ] || cp "$root/bcryptprimitives.dll" "$system/"
# The registry reaches the disk when the server ends.
wineserver -w
touch "$WINEPREFIX/.ready-1"
