# frozen_string_literal: true

module Mmf
  # How objects are opened and made: the same words for all of them.
  #
  # `name:` is memory that this user's programs see, `global:` memory that every user's see, `exact:` the system's own
  # spelling, and `file:` a file. With a block, the object is closed after it, and what the block gave is returned.
  module Opening
    PLACES = %i[name global exact file].freeze
    private_constant :PLACES

    # Opens what exists.
    #
    # @raise [NotFoundError]
    def open(**options, &block)
      opened(:open, placed(options), &block)
    end

    # Makes what does not exist yet.
    #
    # @raise [AlreadyExistsError]
    def create(**options, &block)
      opened(:create, placed(options), &block)
    end

    # Opens it, or makes it where there is none. However many processes do so at once, one makes it.
    def open_or_create(**options, &block)
      opened(:open_or_create, placed(options), &block)
    end

    private

    def placed(options)
      return options if PLACES.one? { |place| options[place] }

      raise InvalidArgumentError, "give one of #{PLACES.map { |place| "#{place}:" }.join(", ")}"
    end

    def opened(how, options)
      unknown = options.keys - PLACES - const_get(:OPTIONS)
      raise InvalidArgumentError, "unknown keyword: #{unknown.first.inspect}" unless unknown.empty?

      object = native_open(how, options)
      object.send(:remember, options)
      return object unless block_given?

      begin
        yield object
      ensure
        object.close
      end
    end
  end
end
