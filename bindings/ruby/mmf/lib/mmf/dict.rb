# frozen_string_literal: true

module Mmf
  # A crash-consistent key-value store that processes share. Keys are Strings (or Symbols, which are
  # the same keys); values are whatever MessagePack holds, for programs in every language. Reading
  # takes no lock. The next writer completes an interrupted change of a process that died; no change
  # is lost, and no process waits for a dead one.
  #
  #   dict = Mmf::Dict.open_or_create(name: "settings", capacity: 16 << 20)
  #   dict[:greeting] = "hello"
  #   dict.greeting # => "hello"
  #   dict.visits = 0
  #   dict.increment(:visits) # => 1
  #   dict.transaction do |tx|
  #     tx[:ann] -= 30
  #     tx[:ben] += 30
  #   end
  #
  # Values are nil, true, false, Integers from -2**63 to 2**64 - 1, Floats, Strings, Symbols (read
  # back as Strings), Arrays and Hashes of these. Binary Strings stay binary; all others are stored
  # and read in UTF-8. Anything else raises. A value that is read is a copy: `dict.list << 1`
  # changes nothing in the dict, `dict.update(:list) { |list| list << 1 }` does.
  #
  # Options beside `name:`, `global:`, `exact:` or `file:` are those of Region, and
  # - `work_time:` (0.05) seconds for which a call may work even if `timeout:` is shorter, once it
  #   has its lock or needs none; nil means no limit. A longer `timeout:` replaces it. So the default
  #   timeout of 10 seconds lets #to_h copy for 10 seconds. A program that waits only briefly for
  #   locks gives both: `timeout: 0.01, work_time: 5`
  class Dict
    extend Opening
    include Enumerable

    # @api private
    OPTIONS = %i[capacity max_capacity access permissions allow_other_owners timeout work_time].freeze
    MISSING = Object.new.freeze
    private_constant :OPTIONS, :MISSING
    private_class_method :new, :native_open
    private :native_get, :native_versioned, :native_replace, :native_increment, :native_clear, :native_flush,
            :native_entries, :native_transaction, :native_snapshot, :native_watch

    # The stream of changes.
    # @api private
    class Changes
      private_class_method :new
    end
    private_constant :Changes

    # The argument of a block of Dict#transaction.
    class Transaction
      class << self
        # @api private
        def running(dict, changes)
          new(dict, changes)
        end

        private :new
      end

      # @api private
      def initialize(dict, changes)
        @dict = dict
        @changes = changes
      end

      # Returns the value of a key with the changes of this transaction; nil if there is no such
      # key.
      def [](key)
        fetch(key, nil)
      end

      # As Dict#fetch.
      def fetch(key, *default, &block)
        change = @changes.fetch(Dict.key(key)) { return @dict.fetch(key, *default, &block) }
        change ? Dict.decode(change) : @dict.send(:absent, key, *default, &block)
      end

      # @return [Boolean]
      def key?(key)
        @changes.fetch(Dict.key(key)) { return @dict.key?(key) } ? true : false
      end

      # Sets a key once the transaction is complete.
      #
      # @raise [ReadOnlyError] in one that is `read_only:`, and after the block
      def []=(key, value)
        change(key, Dict.encode(value))
      end

      # Removes a key once the transaction is complete.
      #
      # @return [Object, nil] its value
      def delete(key)
        old = self[key]
        change(key, nil)
        old
      end

      # Leaves the block without any change. The transaction returns nil.
      def abort
        throw self
      end

      def inspect
        "#<#{self.class}>"
      end

      private

      def change(key, value)
        @changes[Dict.key(key)] = value
      rescue FrozenError
        raise ReadOnlyError, "the transaction is for reading, or at its end"
      end
    end

    class << self
      # @api private
      # @!method encode(value)
      # @!method decode(bytes)
      # @!method key(key)

      private

      def opened(how, options, &block)
        options = options.merge(file: File.path(options[:file])) if options[:file]
        super(how, options, &block)
      end
    end

    # @!attribute timeout
    #   The limit in seconds for the wait for a lock, for the attempts of a read beside writers, and
    #   then for the work of the call (see #work_time); nil means no limit. The `timeout:` of a
    #   single call limits its wait only.
    #   @return [Float, nil]

    # @!attribute work_time
    #   Seconds for which a call may work even if #timeout is shorter, once it has its lock or needs
    #   none: to copy all entries, to search for space. A longer #timeout replaces it; less than 0.05
    #   counts as 0.05; nil means no limit. A call that works for longer raises TimeoutError.
    #   @return [Float, nil]

    # @!method size
    #   @return [Integer] the number of keys
    alias length size

    # @!method capacity
    #   @return [Integer] the number of bytes that it may grow to

    # @!method source
    #   @return [String] its name or file, as `mmf ls` spells it

    # @!method read_only?
    #   @return [Boolean]

    # @!method close
    #   Closes the dict; a second call does nothing. A named dict ends with the last process that
    #   has it open.
    #   @return [nil]

    # @!method closed?
    #   @return [Boolean]

    # @return [Boolean]
    def empty?
      size.zero?
    end

    # @!method [](key)
    #   The value of a key; nil if there is no such key.
    #   @param key [String, Symbol]
    #   @raise [MismatchError] if Ruby cannot represent the value

    # @!method []=(key, value)
    #   Sets a key.
    #   @raise [FullError] if there is no room, and then the old value stays
    #   @raise [InvalidArgumentError] for a value that MessagePack cannot hold
    #   @raise [TimeoutError]
    #   @raise [DeadlockError] in a transaction of this thread

    # @!method store(key, value)
    #   Sets a key, as #[]=, and returns the change's version.
    #   @return [Integer]

    # Returns the value of a key; if there is none, the default or the block's result.
    #
    # @raise [KeyError] (Mmf's, and kin of Ruby's) if there is neither
    def fetch(key, *default, &block)
      value = native_get(key, MISSING)
      value.equal?(MISSING) ? absent(key, *default, &block) : value
    end

    # @!method key?(key)
    #   @return [Boolean]
    alias has_key? key?
    alias include? key?
    alias member? key?

    # @!method keys
    #   @return [Array<String>] those of one moment, in no particular order

    # @return [Array] those of one moment
    def values
      native_entries.map(&:last)
    end

    # Yields the keys and values of one moment. The block may change the dict.
    #
    # @yieldparam key [String]
    # @yieldparam value [Object]
    def each(&block)
      return enum_for(:each) { size } unless block

      native_entries.each(&block)
      self
    end
    alias each_pair each

    # @return [Hash] the entries of one moment
    def to_h(&block)
      native_entries.to_h(&block)
    end

    # @!method delete(key)
    #   Removes a key.
    #   @return [Object, nil] the value it had

    # Removes all keys at once.
    def clear
      native_clear
      self
    end

    # Replaces a value by the block's result. The block runs without a lock, and again if another
    # process changed the key meanwhile.
    #
    # @yieldparam old [Object, nil]
    # @return [Object] the new value
    # @raise [ContendedError] if other writers changed the key at each attempt until the timeout
    def update(key, timeout: self.timeout)
      deadline = timeout && now + timeout
      loop do
        old, version = native_versioned(key, timeout)
        new = yield(old)
        return new if native_replace(key, version, new, timeout)
        raise ContendedError, "other writers change #{key.inspect} at each attempt" if deadline && now >= deadline
      end
    end

    # Adds to a number, which is 0 if there is no such key.
    #
    # @param by [Integer]
    # @return [Integer] the sum
    # @raise [MismatchError] if it is no Integer
    # @raise [InvalidArgumentError] if the sum is beyond 64 bits with a sign
    def increment(key, by = 1, timeout: self.timeout)
      native_increment(key, by, timeout)
    end

    # Makes all changes of the block at once, or none: every other process sees all of them or none,
    # whichever process dies. Other writers wait meanwhile; readers do not. An exception, `throw`
    # and Transaction#abort discard all changes.
    #
    # With `read_only: true`, the block sees the dict as it is at one moment. A dict that was opened
    # for reading takes no lock; there the block runs again if a process wrote meanwhile.
    #
    # Within the block, other writes of this thread raise DeadlockError.
    #
    # @yieldparam tx [Transaction]
    # @return [Object] the block's result; nil if the transaction was aborted
    def transaction(read_only: false, timeout: self.timeout)
      changes = {}
      tx = Transaction.running(self, changes)
      catch(tx) do
        next native_transaction(timeout, changes) { yield tx } unless read_only

        changes.freeze
        native_snapshot(timeout) { yield tx }
      end
    ensure
      changes&.freeze
    end

    # Yields each change from now on, until the block breaks or the timeout passes without a change:
    # the key, its present value (which may be newer than the change; nil if the key was removed),
    # and the change's version. If all keys were removed at once, key and value are nil. If changes
    # were missed because the change log was overwritten, all three are nil: read the dict again.
    #
    # @param key [String, Symbol, nil] watches this key only
    # @param prefix [String, Symbol, nil] watches the keys that start with it
    # @yieldparam key [String, nil]
    # @yieldparam value [Object, nil]
    # @yieldparam version [Integer, nil]
    def watch(key = nil, prefix: nil, timeout: nil)
      return enum_for(:watch, key, prefix: prefix, timeout: timeout) unless block_given?
      raise InvalidArgumentError, "give either a key or a prefix" if key && prefix

      changes = native_watch(key, prefix)
      while (what, changed, version = changes.next(timeout))
        yield changed, (self[changed] if what == :set), version
      end
    end

    # @!method version(key)
    #   Returns the version of the change that gave the key its value; nil if there is no such key.
    #   Versions only grow, over all keys.
    #   @return [Integer, nil]

    # Writes a file's changes to the disk. Until then a power cut may undo them; the death of a
    # process undoes nothing.
    def flush
      native_flush
      self
    end

    def inspect
      return "#<#{self.class} closed>" if closed?

      "#<#{self.class} #{source} size=#{size} capacity=#{capacity}#{" read_only" if read_only?}>"
    end

    # @!method method_missing(name, *args)
    #   A setter or a reader: `dict.foo = 1`, `dict.foo`. `respond_to?` is true for existing keys,
    #   and for every setter that can be used.
    #   @raise [NoMethodError] if there is no such key
    #   @raise [InvalidArgumentError] from a setter whose name is a method: use `[]=` for such a key

    private

    def remember(options)
      self.timeout = options.fetch(:timeout, 10.0)
    end

    # The result of #fetch without a value.
    def absent(key, *default)
      raise ArgumentError, "wrong number of arguments (given #{default.size + 1}, expected 1..2)" if default.size > 1
      return yield key if block_given?
      return default.first unless default.empty?

      raise KeyError.new("key not found: #{key.inspect}", receiver: self, key: key)
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end
  end
end
