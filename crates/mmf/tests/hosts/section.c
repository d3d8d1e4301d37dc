/*
 * A section as a C program makes and opens one, with nothing but the system's own calls.
 *
 *     section create NAME SIZE    makes it, writes `from C` at its beginning, and says `ready`
 *     section open NAME           opens it, and says `ready` and the first 8 bytes
 *
 * Both then hear a line, say the 8 bytes at offset 100, and end. `open` writes `by C too` at offset 200 before.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

static int fail(const char *what)
{
    fprintf(stderr, "%s: error %lu\n", what, GetLastError());
    return 1;
}

int main(int count, char **arguments)
{
    HANDLE section;
    char *bytes;
    char line[16];
    int creates;

    if (count < 3)
        return fail("section create NAME SIZE | section open NAME");
    creates = strcmp(arguments[1], "create") == 0;
    if (creates)
        section = CreateFileMappingA(INVALID_HANDLE_VALUE, NULL, PAGE_READWRITE, 0, strtoul(arguments[3], NULL, 10),
                                     arguments[2]);
    else
        section = OpenFileMappingA(FILE_MAP_ALL_ACCESS, FALSE, arguments[2]);
    if (section == NULL)
        return fail(creates ? "CreateFileMapping" : "OpenFileMapping");
    if (creates && GetLastError() == ERROR_ALREADY_EXISTS)
        return fail("it is there already");
    bytes = MapViewOfFile(section, FILE_MAP_ALL_ACCESS, 0, 0, 0);
    if (bytes == NULL)
        return fail("MapViewOfFile");
    if (creates) {
        memcpy(bytes, "from C", 6);
        printf("ready\n");
    } else {
        memcpy(bytes + 200, "by C too", 8);
        printf("ready %.8s\n", bytes);
    }
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL)
        return fail("nothing was said");
    printf("%.8s\n", bytes + 100);
    return 0;
}
