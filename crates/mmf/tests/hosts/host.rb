# Loads the guest into Ruby, which reports faults by handlers of its own.
#
# host.rb GUEST FILE: FILE has 3 pages. Says `alive` when the guest has met a page that is gone, and then reads one
# without a guard.

require "fiddle"

PAGE = 4096
guest = Fiddle.dlopen(ARGV[0])
path = ARGV[1]
open_it = Fiddle::Function.new(guest["guest_open"], [Fiddle::TYPE_VOIDP], Fiddle::TYPE_VOIDP)
read_it = Fiddle::Function.new(
  guest["guest_read"],
  [Fiddle::TYPE_VOIDP, Fiddle::TYPE_SIZE_T, Fiddle::TYPE_VOIDP, Fiddle::TYPE_SIZE_T],
  Fiddle::TYPE_INT
)
mmap = Fiddle::Function.new(
  Fiddle.dlopen(nil)["mmap"],
  [Fiddle::TYPE_VOIDP, Fiddle::TYPE_SIZE_T, Fiddle::TYPE_INT, Fiddle::TYPE_INT, Fiddle::TYPE_INT, Fiddle::TYPE_LONG],
  Fiddle::TYPE_VOIDP
)

file = File.open(path, "r+b")
unguarded = mmap.call(nil, 3 * PAGE, 1, 1, file.fileno, 0)
mapped = open_it.call(path)
room = Fiddle::Pointer.malloc(4, Fiddle::RUBY_FREE)
raise "it is there" unless read_it.call(mapped, 2 * PAGE, room, 4).zero?
File.truncate(path, PAGE)
raise "a page that is gone" unless read_it.call(mapped, 2 * PAGE, room, 4) == 1
raise "one that is there" unless read_it.call(mapped, 0, room, 4).zero?
GC.start
puts "alive"
$stdout.flush

def genuine_fault(unguarded)
  unguarded[2 * PAGE, 1]
end

genuine_fault(unguarded)
