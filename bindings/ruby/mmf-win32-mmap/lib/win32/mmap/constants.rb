# frozen_string_literal: true

module Win32
  class MMap
    # The numbers that Windows' headers have for `protection` and `access`.
    module Constants
      PAGE_NOACCESS = 0x01
      PAGE_READONLY = 0x02
      PAGE_READWRITE = 0x04
      PAGE_WRITECOPY = 0x08
      PAGE_EXECUTE = 0x10
      PAGE_EXECUTE_READ = 0x20
      PAGE_EXECUTE_READWRITE = 0x40
      PAGE_EXECUTE_WRITECOPY = 0x80
      PAGE_GUARD = 0x100
      PAGE_NOCACHE = 0x200
      PAGE_WRITECOMBINE = 0x400

      SEC_FILE = 0x800000
      SEC_IMAGE = 0x1000000
      SEC_VLM = 0x2000000
      SEC_RESERVE = 0x4000000
      SEC_COMMIT = 0x8000000
      SEC_NOCACHE = 0x10000000
      SEC_LARGE_PAGES = 0x80000000

      FILE_MAP_COPY = 0x0001
      FILE_MAP_WRITE = 0x0002
      FILE_MAP_READ = 0x0004
      FILE_MAP_ALL_ACCESS = 0xF001F
    end
  end
end
