# frozen_string_literal: true

module Mmf
  # Opening and creating, common to all objects.
  #
  # `name:` is memory for this user's programs, `global:` memory for the programs of all users,
  # `exact:` the system's own spelling, and `file:` a file. With a block, the object is closed after
  # it, and the block's result is returned.
  module Opening
    PLACES = %i[name global exact file].freeze
    private_constant :PLACES

    # Opens an existing object.
    #
    # @raise [NotFoundError]
    def open(**options, &block)
      opened(:open, placed(options), &block)
    end

    # Creates an object that does not exist yet.
    #
    # @raise [AlreadyExistsError]
    def create(**options, &block)
      opened(:create, placed(options), &block)
    end

    # Opens an object, or creates it. Of several processes that do so at the same time, one creates
    # it.
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
