# frozen_string_literal: true

require_relative "mmap/version"
require_relative "mmap/constants"

# A namespace only.
module Win32
  # Memory that processes share, with attributes that are set and read like those of an object:
  #
  #   map = Win32::MMap.new(name: "alpha", size: 2000)
  #   map.foo = "hello"
  #   # and in another process:
  #   Win32::MMap.open("alpha").foo # => "hello"
  #
  # The attributes are one hash, stored from the first byte on as one Marshal string, as the gem
  # win32-mmap 0.4 writes and reads it.
  class MMap
    include Constants

    # Errors of a map or its contents. Invalid arguments raise ArgumentError or RangeError, and
    # errors of the system raise SystemCallError.
    class Error < StandardError; end

    # Another process held the lock until the #timeout. The map is unchanged, and the call may be
    # repeated.
    class TimeoutError < Error; end

    # The bytes in the map are not attributes, or contain objects that need `trusted: true`.
    class FormatError < Error; end
  end
end

require "win32/mmap_native"

module Win32
  class MMap # rubocop:disable Style/Documentation
    private_constant :Native

    # The options of .new, in any case, as symbols or strings.
    OPTIONS = %w[file name protection access inherit size base_address open autolock timeout trusted].freeze

    # Methods by which Ruby converts objects implicitly. As attributes they would convert a map to
    # arrays and strings unexpectedly.
    CONVERSIONS = %w[to_a to_ary to_h to_hash to_s to_str to_i to_int to_f to_r to_c to_sym to_proc to_io to_path
                     to_regexp to_enum to_open to_partial_path marshal_dump marshal_load _dump].freeze

    ATTRIBUTE = /\A[[:alpha:]_][[:alnum:]_]*\z/.freeze

    private_constant :OPTIONS, :CONVERSIONS, :ATTRIBUTE

    # The options that the map was opened with. Setters change these values, but not the open map.
    attr_accessor :file, :name, :protection, :access, :base_address

    # The time to wait for the lock, in milliseconds. nil, a negative number or 0xFFFFFFFF means no
    # limit.
    attr_accessor :timeout

    # Whether each access takes the lock. Anything but false does.
    attr_writer :autolock

    # Whether a child process inherits the map's handle. It is the one option that has to be given
    # to .new.
    attr_writer :inherit

    # Opens a map, or creates it.
    #
    # @param opts [Hash] options, by symbols or strings in any case
    # @option opts [String] file the file of the map; created if there is none
    # @option opts [String] name the named memory of the map; created if there is none. With
    #   neither, the map is memory for this process and its forked children
    # @option opts [Integer] size the number of bytes; a file is extended to it, existing named
    #   memory may be smaller
    # @option opts [Integer] protection a PAGE_ constant and any of SEC_COMMIT, SEC_RESERVE,
    #   SEC_LARGE_PAGES
    # @option opts [Integer] access a FILE_MAP_ constant
    # @option opts [Boolean] inherit (false)
    # @option opts [Integer] base_address (0) the address in this process; 0 means any address
    # @option opts [Boolean] open (false) whether the map must exist
    # @option opts [Boolean] autolock (true)
    # @option opts [Numeric, nil] timeout (10) in milliseconds
    # @option opts [Boolean] trusted (false) whether objects of any class may be read. A process
    #   that can write to the map can then run code in this process
    # @yieldparam address [Integer] the address of its first byte; the map is closed after the block
    # @raise [ArgumentError] for options that do not exist or make no sense
    # @raise [SystemCallError] where the system refuses
    def initialize(opts = {})
      options = named(opts)
      @file, @name = options.values_at("file", "name")
      @protection = options["protection"] || PAGE_READWRITE
      @access = options["access"] || FILE_MAP_WRITE
      @inherit = options["inherit"] ? true : false
      @base_address = options["base_address"] || 0
      @autolock = options["autolock"] != false
      @timeout = options.fetch("timeout", 10)
      @timeout = 10 if @timeout.nil?
      @trusted = options["trusted"] ? true : false
      @native = open_native(options)
      return unless block_given?

      begin
        yield address
      ensure
        close
      end
    end

    # Opens memory that exists, by its name, with all the bytes it has unless a size is given.
    #
    # @param name [String]
    # @param opts [Hash] as for .new
    # @return [MMap]
    # @raise [Errno::ENOENT] where no process has it open
    def self.open(name, opts = {}, &block)
      opts = opts.reject { |key, _| %w[name open].include?(key.to_s.downcase) }
      new(opts.merge("name" => name, "open" => true), &block)
    end

    # @return [Integer] the address of its first byte in this process
    def address
      @native.address
    end

    # @return [Integer] the number of bytes in use
    def size
      @native.size
    end

    # Sets the number of bytes in use.
    #
    # @raise [RangeError] if the map has fewer
    def size=(bytes)
      @native.size = bytes
    end

    # @return [Boolean]
    def autolock?
      @autolock != false
    end

    # @return [Boolean]
    def inherit?
      @inherit ? true : false
    end

    # @return [Boolean] whether objects of any class are read
    def trusted?
      @trusted
    end

    # @return [Boolean]
    def closed?
      @native.closed?
    end

    # Returns the first bytes as they are.
    #
    # @param length [Integer] the number of bytes
    # @return [String] binary
    # @raise [RangeError] past the end
    # @raise [TimeoutError]
    def read_string(length = size)
      @native.read_string(length, patience)
    end

    # Overwrites bytes at the start. The bytes after them stay.
    #
    # @param content [String]
    # @return [Integer] the number of bytes
    # @raise [RangeError] past the end; the map is unchanged
    # @raise [TimeoutError]
    def write_string(content)
      content = String.try_convert(content) or raise TypeError, "write_string takes a string"
      @native.write_string(content, patience)
      content.bytesize
    end

    # Writes bytes to the file's disk, and returns after that.
    #
    # @param num_bytes [Integer] the number of bytes; 0 means all
    # @return [true]
    # @raise [RangeError] past the end
    # @raise [SystemCallError] where the system fails
    def flush(num_bytes = 0)
      @native.flush(num_bytes)
      true
    end

    # Closes the map. A named map ends with the last process that has it open.
    #
    # @return [nil]
    def close
      @native.close
    end

    # @return [String]
    def inspect
      place = @file ? "file=#{@file.inspect}" : "name=#{@name.inspect}"
      "#<#{self.class} #{place} #{closed? ? "closed" : "size=#{size}"}>"
    end

    private

    # @api private
    def named(opts)
      opts.to_h { |key, value| [key.to_s.downcase, value] }.each_key do |key|
        raise ArgumentError, "Invalid key '#{key}'" unless OPTIONS.include?(key)
      end
    end

    def open_native(options)
      size = Integer(options["size"] || 0)
      raise ArgumentError, "size is below zero" if size.negative?

      existing = options["open"] ? true : false
      file = @file && !existing ? File.path(@file) : nil
      # Without these options, a file that this process may only read is opened for reading.
      lenient = !options["protection"] && !options["access"]
      native = Native.new(file, @name&.to_str, size, existing, mode, lenient, large_pages?, @inherit, @base_address)
      if lenient && native.read_only?
        @protection = PAGE_READONLY
        @access = FILE_MAP_READ
      end
      native
    end

    # 0 is reading, 1 is writing, 2 is writing to a copy.
    def mode
      case @protection & 0xFF
      when PAGE_READONLY, PAGE_EXECUTE_READ then 0
      when PAGE_WRITECOPY, PAGE_EXECUTE_WRITECOPY then @access == FILE_MAP_READ ? 0 : 2
      when PAGE_READWRITE, PAGE_EXECUTE_READWRITE then view_mode
      else raise ArgumentError, format("protection 0x%x does not allow reading", @protection)
      end
    end

    def view_mode
      # FILE_MAP_ALL_ACCESS holds all bits.
      if (@access & FILE_MAP_WRITE) != 0 then 1
      elsif (@access & FILE_MAP_COPY) != 0 then 2
      elsif (@access & FILE_MAP_READ) != 0 then 0
      else raise ArgumentError, format("access 0x%x does not allow reading", @access)
      end
    end

    def large_pages?
      # All bytes are there at once, so that reserving and committing are the same.
      odd = @protection & ~0xFF & ~(SEC_COMMIT | SEC_RESERVE | SEC_LARGE_PAGES)
      raise ArgumentError, format("protection has bits that are not supported: 0x%x", odd) unless odd.zero?

      (@protection & SEC_LARGE_PAGES) != 0
    end

    # Seconds; nil means no limit, false means without the lock.
    def patience
      return false unless autolock?
      return nil if @timeout.nil? || @timeout.negative? || @timeout == 0xFFFFFFFF

      @timeout / 1000.0
    end

    def method_missing(id, *args)
      name = id.name
      if name.end_with?("=")
        key = name.chop
        return super unless ATTRIBUTE.match?(key)
        raise ArgumentError, "wrong number of arguments (given #{args.size}, expected 1)" if args.size != 1

        write_attribute(key, args.first)
      else
        return super if CONVERSIONS.include?(name) || !ATTRIBUTE.match?(name)
        raise ArgumentError, "wrong number of arguments (given #{args.size}, expected 0)" unless args.empty?

        read_attribute(name)
      end
    end

    def respond_to_missing?(id, include_private = false)
      name = id.name
      return ATTRIBUTE.match?(name.chop) && !taken?(name.chop) if name.end_with?("=")
      return super if CONVERSIONS.include?(name) || !ATTRIBUTE.match?(name) || closed?

      key?(name)
    rescue Error, SystemCallError
      false
    end

    def key?(name)
      return @native.key?(name, patience) unless @trusted

      found = nil
      @native.change(patience) { |bytes| (found = load(bytes).key?(name)) && nil }
      found
    end

    def read_attribute(name)
      return @native.get(name, patience) unless @trusted

      value = nil
      @native.change(patience) do |bytes|
        value = load(bytes)[name]
        nil
      end
      value
    end

    def write_attribute(name, value)
      if taken?(name)
        raise NameError.new("#{self.class} has a method `#{name}', so an attribute of that name could not be read", name)
      end
      return @native.set(name, Marshal.dump(value), patience) unless @trusted

      @native.change(patience) do |bytes|
        Marshal.dump(load(bytes).merge!(name.encode(Encoding::UTF_8) => value))
      end
    end

    def load(bytes)
      return {} if bytes.empty?

      hash = Marshal.load(bytes) # rubocop:disable Security/MarshalLoad
      hash.is_a?(Hash) ? hash : raise(FormatError, "the map does not hold attributes")
    end

    # Whether a call of that name would never reach #method_missing.
    def taken?(name)
      CONVERSIONS.include?(name) || self.class.public_method_defined?(name) || singleton_class_has?(name)
    end

    def singleton_class_has?(name)
      singleton_methods.any? { |method| method.name == name }
    end
  end
end
