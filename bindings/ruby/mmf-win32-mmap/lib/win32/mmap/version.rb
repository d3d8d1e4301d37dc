# frozen_string_literal: true

module Win32
  class MMap
    # The release of this gem, not of the one whose interface it has.
    VERSION = "0.1.0"
  end
end
