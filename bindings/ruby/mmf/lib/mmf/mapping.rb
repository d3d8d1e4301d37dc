# frozen_string_literal: true

module Mmf
  # Bytes that processes share, by name or by file. A mapping has no header and no format: it opens
  # the memory of any program. No action of another process can crash this one; a page that is gone
  # raises FaultError.
  #
  #   Mmf::Mapping.create(name: "frames", size: 1 << 20) do |map|
  #     map.pwrite("hello", 100)
  #     map[100, 5] # => "hello"
  #   end
  #
  # Options beside `name:`, `global:`, `exact:` or `file:` are
  # - `size:` bytes of a created object; the minimum for one that is opened
  # - `reserve:` bytes that memory may #grow to
  # - `access:` `:read_write`, `:read_only`, `:copy_on_write`
  # - `permissions:` `:user`, `:everyone`, a mode such as 0o640, or SDDL text on Windows
  # - `part:` a Range of bytes, to map only these
  # - `large_pages:` `:never`, `:prefer`, `:require`
  # - `prefault:`, `inheritable:` true or false
  # - `allow_other_owners:` true opens named memory of any user; false (the default) only that of
  #   this user and of the system, and raises ForeignOwnerError for the rest. Of files,
  #   `open_or_create` alone refuses those of other users
  # - `base_address:` the address of its first byte
  class Mapping
    extend Opening

    # @api private
    OPTIONS = %i[size reserve access permissions part large_pages prefault inheritable allow_other_owners
                 base_address].freeze
    private_constant :OPTIONS
    private_class_method :new, :native_open
    private :native_grow, :native_pread, :native_pwrite, :native_fill, :native_sync, :native_atomic

    class << self
      # Creates memory without a name, which forked children inherit.
      def anonymous(size, **options, &block)
        opened(:create, options.merge(size: size), &block)
      end

      private

      def opened(how, options, &block)
        options = options.merge(file: File.path(options[:file])) if options[:file]
        options = options.merge(part: bounds(options[:part])) if options[:part]
        super(how, options, &block)
      end

      def bounds(range)
        last = range.end
        [range.begin || 0, last && !range.exclude_end? ? last + 1 : last]
      end
    end

    alias length size
    alias bytesize size

    # The position of the next #read or #write.
    #
    # @return [Integer]
    attr_reader :pos
    alias tell pos

    # Returns the bytes at an offset.
    #
    # @param length [Integer]
    # @param offset [Integer]
    # @param buffer [String, nil] a string whose contents the bytes replace; as with IO#pread, a
    #   loop then allocates no memory for each piece
    # @return [String] binary
    # @raise [OutOfBoundsError]
    # @raise [FaultError]
    def pread(length, offset, buffer = nil)
      native_pread(length, offset, buffer)
    end

    # Writes bytes at an offset.
    #
    # @return [Integer] the number of bytes
    # @raise [OutOfBoundsError] and then nothing was written
    # @raise [ReadOnlyError]
    # @raise [FaultError]
    def pwrite(data, offset)
      native_pwrite(data.to_s, offset)
    end

    # Returns bytes, as String#byteslice: `map[0]` is one byte as an Integer, `map[0, 5]` and
    # `map[0...5]` are strings.
    #
    # @return [Integer, String]
    def [](at, length = nil)
      return native_pread(length, offset(at), nil) if length
      return native_pread(1, offset(at), nil).getbyte(0) unless at.is_a?(Range)

      native_pread(*extent(at).reverse, nil)
    end

    # Writes bytes: `map[0] = 65`, `map[0, 5] = "hello"`, `map[0...5] = "hello"`. Their number must
    # be that of the place, because no other bytes move.
    def []=(at, *rest)
      *length, data = rest
      if length.empty? && !at.is_a?(Range)
        raise InvalidArgumentError, "a byte is 0 to 255" unless data.is_a?(Integer) && data.between?(0, 255)

        return native_pwrite(data.chr, offset(at))
      end
      from, size = length.empty? ? extent(at) : [offset(at), length.first]
      data = data.to_s
      raise InvalidArgumentError, "#{data.bytesize} bytes for a place of #{size}" if data.bytesize != size

      native_pwrite(data, from)
    end

    # Sets bytes to one value.
    def fill(byte = 0, offset = 0, length = size - offset)
      native_fill(byte, offset, length)
      self
    end

    # Returns the next bytes, as IO#read: all that are left without a length; nil at the end with
    # one.
    #
    # @param buffer [String, nil] as for #pread
    # @return [String, nil]
    def read(length = nil, buffer = nil)
      left = [size - @pos, 0].max
      if length&.positive? && left.zero?
        buffer&.clear
        return nil
      end

      bytes = native_pread([length || left, left].min, [@pos, size].min, buffer)
      @pos += bytes.bytesize
      bytes
    end

    # Writes bytes at the position and moves it.
    #
    # @return [Integer] the number of bytes
    # @raise [OutOfBoundsError] if they do not fit; a mapping grows only by #grow
    def write(*data)
      data.sum do |one|
        count = native_pwrite(one.to_s, @pos)
        @pos += count
        count
      end
    end

    # Writes, and returns the mapping.
    def <<(data)
      write(data)
      self
    end

    # Moves the position, as IO#seek.
    def seek(offset, whence = IO::SEEK_SET)
      base =
        case whence
        when IO::SEEK_SET, :SET then 0
        when IO::SEEK_CUR, :CUR then @pos
        when IO::SEEK_END, :END then refresh
        else raise InvalidArgumentError, "whence is SET, CUR or END"
        end
      self.pos = base + offset
      0
    end

    def pos=(position)
      raise InvalidArgumentError, "the position is below zero" if position.negative?

      @pos = position
    end

    def rewind
      @pos = 0
    end

    def eof?
      @pos >= size
    end

    # Extends the mapping by zeros; memory up to its reserve.
    def grow(size)
      native_grow(size)
      self
    end

    # Passes changed bytes of a file to the system.
    def flush(offset = 0, length = size - offset)
      native_sync(offset, length, false)
      self
    end

    # As #flush, and returns once they are on the disk.
    def sync(offset = 0, length = size - offset)
      native_sync(offset, length, true)
      self
    end

    # Atomic operations, sequentially consistent between all processes: `kind` is :u8, :u16, :u32,
    # :u64, :i8, :i16, :i32 or :i64, and the offset is a multiple of its size.
    #
    # @return [Integer] the value
    def load(kind, offset)
      native_atomic(kind, :load, offset, [])
    end

    def store(kind, offset, value)
      native_atomic(kind, :store, offset, [value])
    end

    # @return [Integer] the value before
    def swap(kind, offset, value)
      native_atomic(kind, :swap, offset, [value])
    end

    # Adds, with wrap-around.
    #
    # @return [Integer] the value before
    def fetch_add(kind, offset, value)
      native_atomic(kind, :add, offset, [value])
    end

    # Stores the new value if the present one is `current`.
    #
    # @return [Integer] the value before: `current` if the store happened
    def compare_exchange(kind, offset, current, new)
      native_atomic(kind, :compare, offset, [current, new])
    end

    def inspect
      return "#<#{self.class} closed>" if closed?

      "#<#{self.class} #{source || "anonymous"} size=#{size} access=#{access}>"
    end

    private

    def remember(_options)
      @pos = 0
    end

    def offset(at)
      at.negative? ? at + size : at
    end

    def extent(range)
      from = offset(range.begin || 0)
      to = range.end ? offset(range.end) + (range.exclude_end? ? 0 : 1) : size
      [from, [to - from, 0].max]
    end
  end
end
