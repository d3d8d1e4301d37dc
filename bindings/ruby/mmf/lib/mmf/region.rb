# frozen_string_literal: true

module Mmf
  # A run of bytes that processes share behind a robust reader-writer lock. If the holder dies, the
  # next process gets the lock; if it died while it changed the bytes, with a PoisonedError.
  #
  #   region = Mmf::Region.open_or_create(name: "state", capacity: 1 << 20)
  #   region.write("on")
  #   region.read # => "on"
  #   region.update { |old| old + "!" }
  #
  # Options beside `name:`, `global:`, `exact:` or `file:` are
  # - `capacity:` bytes that a created region may grow to; the minimum for one that is opened
  # - `max_capacity:` bytes; refuses to open or create an object of a larger capacity, which bounds
  #   the memory that it can take. The process that made the object chose its capacity: give this
  #   option where that process is not trusted
  # - `access:` `:read_write` or `:read_only`
  # - `permissions:` and `allow_other_owners:` as for Mapping
  # - `timeout:` (10.0) seconds to wait for a lock; nil means no limit
  class Region
    extend Opening

    # @api private
    OPTIONS = %i[capacity max_capacity access permissions allow_other_owners timeout].freeze
    private_constant :OPTIONS
    private_class_method :new, :native_open
    private :native_lock, :native_read, :native_wait, :native_status

    # The state of a region at one moment.
    Status = Struct.new(:size, :capacity, :version, :poisoned, :created, :participants, keyword_init: true)
    # A handle that has locked or waited.
    Participant = Struct.new(:pid, :since, :writing, :reading, keyword_init: true)

    # The lock within a block.
    class Guard
      private_class_method :new

      alias length size

      # Replaces the contents. #pwrite changes a part of them.
      def write(data)
        replace(data.to_s)
        data.to_s.bytesize
      end

      def inspect
        "#<#{self.class}>"
      end
    end

    class << self
      private

      def opened(how, options, &block)
        options = options.merge(file: File.path(options[:file])) if options[:file]
        super(how, options, &block)
      end
    end

    # The seconds to wait for a lock; nil means no limit.
    attr_accessor :timeout

    # Returns the contents; with a block, takes the lock for reading and yields a Guard.
    #
    # @return [String, Object] binary contents, or the block's result
    # @raise [TimeoutError]
    # @raise [PoisonedError]
    def read(timeout: self.timeout, &block)
      block ? native_lock(false, timeout, false, &block) : native_read(timeout)
    end

    # Replaces the contents; with a block, takes the lock for writing and yields a Guard. Changes
    # that the block made before an exception stay.
    #
    # @param repair [Boolean] whether to take a poisoned lock; the poison is cleared after the block
    # @raise [TimeoutError]
    # @raise [PoisonedError]
    def write(data = nil, timeout: self.timeout, repair: false, &block)
      raise InvalidArgumentError, "give either data or a block" if data.nil? == block.nil?

      native_lock(true, timeout, repair, &block || ->(guard) { guard.write(data) })
    end

    # Replaces the contents by the block's result, under the lock for writing.
    #
    # @yieldparam old [String]
    # @return [String] the new contents
    def update(timeout: self.timeout)
      native_lock(true, timeout, false) do |guard|
        new = yield(guard.read).to_s
        guard.replace(new)
        new
      end
    end

    # Waits until the version differs from the given one.
    #
    # @return [Integer, nil] the new version; nil after the timeout
    def wait_changed(since = version, timeout: self.timeout)
      native_wait(since, timeout)
    end

    # Yields the contents now and after each change, until the block breaks or the timeout passes
    # without a change.
    #
    # @yieldparam contents [String]
    # @yieldparam version [Integer]
    def watch(timeout: nil)
      return enum_for(:watch, timeout: timeout) unless block_given?

      version = self.version
      while version
        yield read, version
        version = wait_changed(version, timeout: timeout)
      end
    end

    # @return [Integer] bytes of contents
    def size
      status.size
    end

    # @return [Status]
    def status
      size, capacity, version, poisoned, created, participants = native_status
      participants = participants.map do |pid, since, writing, reading|
        Participant.new(pid: pid, since: Time.at(since), writing: writing, reading: reading)
      end
      Status.new(size: size, capacity: capacity, version: version, poisoned: poisoned, created: Time.at(created),
                 participants: participants)
    end

    def inspect
      return "#<#{self.class} closed>" if closed?

      "#<#{self.class} #{source} size=#{size} capacity=#{capacity}#{" poisoned" if poisoned?}>"
    end

    private

    def remember(options)
      @timeout = options.fetch(:timeout, 10.0)
    end
  end
end
