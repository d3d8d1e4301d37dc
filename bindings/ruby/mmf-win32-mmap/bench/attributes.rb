# frozen_string_literal: true

# How long attributes take, against a model of the old gem in plain Ruby on the same map: `rake bench`. The model does
# what win32-mmap 0.4 does, by Fiddle in place of FFI and a semaphore of POSIX in place of that of Windows.

require_relative "../../build/bench"
require "fiddle"
require "win32/mmap"

class Model
  LIBC = Fiddle.dlopen(nil)
  INIT = Fiddle::Function.new(LIBC["sem_init"], [Fiddle::TYPE_VOIDP, Fiddle::TYPE_INT, Fiddle::TYPE_INT], Fiddle::TYPE_INT)
  TAKE = Fiddle::Function.new(LIBC["sem_trywait"], [Fiddle::TYPE_VOIDP], Fiddle::TYPE_INT)
  GIVE = Fiddle::Function.new(LIBC["sem_post"], [Fiddle::TYPE_VOIDP], Fiddle::TYPE_INT)

  def initialize(map)
    @map = Fiddle::Pointer.new(map.address)
    @size = map.size
    @hash = {}
    # Larger than that of any system.
    @semaphore = Fiddle.malloc(64)
    INIT.call(@semaphore, 1, 1)
  end

  def method_missing(id, *args)
    name = id.name
    if name.end_with?("=")
      @hash[name.chop] = args.first
      locked do
        bytes = Marshal.dump(@hash)
        @map[0, bytes.bytesize] = bytes
      end
    else
      locked { Marshal.load(@map[0, @size])[name] }
    end
  end

  def respond_to_missing?(*)
    true
  end

  private

  def locked
    raise "the lock is taken" if TAKE.call(@semaphore) != 0

    result = yield
    GIVE.call(@semaphore)
    result
  end
end

Bench.table("Attributes of `Win32::MMap`", "model of the old gem")
[2, 20, 100].each do |keys|
  map = Win32::MMap.new(name: "bench-#{$$}", size: 16_384)
  model = Model.new(map)
  keys.times { |i| model.public_send("key#{i}=", "value #{i}") }
  model.foo = "hello"
  names = { map: map, model: model }
  ["foo", "foo = 'hello'"].each do |call|
    Bench.row("`map.#{call}`, #{keys + 1} keys", 1, Bench.loop_of("map.#{call}", **names), Bench.loop_of("model.#{call}", **names))
  end
  map.close
end
