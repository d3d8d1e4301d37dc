# frozen_string_literal: true

require_relative "helper"
require "fiddle"

# The flaws of win32-mmap 0.4 that this gem does not have, one test each.
class TestMended < MMapTestCase
  HOLDER = <<~RUBY
    map = MMap.new(name: ARGV[0], size: 4096, trusted: true)
    map.send(:instance_variable_get, :@native).change(10.0) { puts "inside"; $stdin.gets; nil }
    puts "outside"
    $stdin.gets
  RUBY

  def test_a_timeout_raises_and_the_object_works_on
    map = map(name: unique, size: 4096)
    map.foo = 1
    holder = Peer.new(HOLDER, unique)
    assert_equal("inside", holder.hear)
    map.timeout = 10
    assert_raise(MMap::TimeoutError) { map.foo = 2 }
    assert_raise(MMap::TimeoutError) { map.foo }
    assert_raise(MMap::TimeoutError) { map.read_string(1) }
    map.timeout = 60_000
    holder.say("go on")
    assert_equal("outside", holder.hear)
    assert_equal(1, map.foo)
    map.foo = 3
    assert_equal(3, map.foo)
    holder.finish
  end

  def test_a_setter_keeps_the_keys_that_others_set
    first = map(name: unique, size: 4096)
    second = map(name: unique, size: 4096)
    first.a = 1
    second.b = 2
    first.c = 3
    assert_equal([1, 2, 3], [second.a, second.b, second.c])
  end

  def test_a_map_that_was_never_written_reads_as_nil
    map = map(name: unique, size: 4096)
    assert_nil(map.foo)
    map.bar = 1
    assert_nil(map.foo)
  end

  def test_close_twice_and_without_the_lock_is_harmless
    map = map(name: unique, size: 4096)
    other = map(name: unique, size: 4096)
    holder = Peer.new(HOLDER, unique)
    assert_equal("inside", holder.hear)
    2.times { assert_nil(map.close) }
    # The lock is still the holder's.
    other.timeout = 10
    assert_raise(MMap::TimeoutError) { other.foo }
    assert_raise(IOError) { map.foo }
    assert_raise(IOError) { map.size }
    holder.say("go on")
    holder.hear
    holder.finish
  end

  def test_maps_without_a_name_share_no_lock
    first = map(size: 100, trusted: true)
    second = map(size: 100, timeout: 0)
    first.send(:instance_variable_get, :@native).change(0.0) do
      second.foo = 1
      nil
    end
    assert_equal([nil, 1], [first.foo, second.foo])
  end

  def test_two_openers_of_one_file_share_a_lock_however_they_spell_it
    first = map(file: path, size: 100, trusted: true)
    File.symlink(path, path("link"))
    second = map(file: path("link"), timeout: 10)
    first.send(:instance_variable_get, :@native).change(0.0) do
      Thread.new { assert_raise(MMap::TimeoutError) { second.foo = 1 } }.join
      nil
    end
  end

  def test_lengths_are_bytes
    map = map(name: unique, size: 64)
    text = "ä" * 10
    assert_equal(20, map.write_string(text))
    assert_equal(text.b, map.read_string(20))
  end

  def test_nothing_passes_the_end
    map = map(file: path, size: 64)
    map.write_string("x" * 64)
    assert_raise(RangeError) { map.write_string("y" * 65) }
    assert_raise(RangeError) { map.read_string(65) }
    assert_raise(RangeError) { map.flush(65) }
    assert_equal("x" * 64, File.binread(path))
  end

  def test_a_value_that_does_not_fit_raises_and_the_old_one_stays
    map = map(file: path, size: 64)
    map.foo = "old"
    before = File.binread(path)
    assert_raise(RangeError) { map.foo = "x" * 64 }
    assert_raise(RangeError) { map.bar = "x" * 64 }
    assert_equal(before, File.binread(path))
    assert_equal("old", map.foo)
  end

  def test_several_processes_open_one_file
    map = map(file: path, size: 4096)
    map.foo = "here"
    peer = Peer.new("map = MMap.new(file: ARGV[0]); puts map.foo; map.foo = 'there'; puts :done; $stdin.gets", path)
    assert_equal("here", peer.hear)
    assert_equal("done", peer.hear)
    assert_equal("there", map.foo)
    peer.finish
  end

  def test_an_empty_or_new_file_works
    File.write(path, "")
    [path, path("new")].each do |file|
      empty = map(file: file)
      assert_equal([0, nil], [empty.size, empty.foo])
      assert_raise(RangeError) { empty.foo = 1 }
      map = map(file: file, size: 100)
      map.foo = 1
      assert_equal([1, 100], [map.foo, File.size(file)])
      # The first sees it too, though it was opened when there was nothing.
      assert_equal(1, empty.foo)
    end
  end

  def test_read_only_files_open
    map(file: path, size: 100).foo = 1
    map = map(file: path, protection: MMap::PAGE_READONLY, access: MMap::FILE_MAP_READ)
    assert_equal(1, map.foo)
    assert_raise(IOError) { map.foo = 2 }
    assert_raise(IOError) { map.write_string("x") }
  end

  def test_a_user_who_may_only_read_reads
    omit("needs root, to become somebody who may not") unless Process.uid.zero?
    map(file: path, size: 100).foo = 1
    lock = "#{path}.ruby_lock"
    File.chmod(0o755, @directory)
    # With the lock to look at, without the right to; and without one.
    [[0o644, 0o644], [0o644, 0o600], [0o644, nil]].each do |file, beside|
      File.chmod(file, path)
      beside ? File.chmod(beside, lock) : File.delete(lock)
      peer = Peer.new(<<~RUBY, path)
        map = MMap.new(file: ARGV[0], timeout: 1000) if (Process::Sys.setgid(65534); Process::Sys.setuid(65534); true)
        puts begin
          [map.foo, map.access, map.protection].inspect
        rescue SystemCallError => error
          error.class
        end
      RUBY
      expected = beside == 0o600 ? "Errno::EACCES" : "[1, 4, 2]"
      assert_equal("#{expected}\n", peer.finish)
    end
  end

  def test_flush_failures_raise
    map = map(file: path, size: 64)
    assert_equal(true, map.flush)
    assert_equal(true, map.flush(10))
    assert_raise(RangeError) { map.flush(1000) }
    # A system that cannot write: its call is refused, as by a broken disk.
    omit("the refusal is one of Linux on x86-64 and ARM64") unless NO_DISK
    peer = Peer.new(<<~RUBY, path)
      map = MMap.new(file: ARGV[0])
      map.foo = 1
      map.flush
      #{NO_DISK}
      puts begin
        map.flush
      rescue SystemCallError => error
        error.class
      end
      puts map.foo
    RUBY
    assert_equal("Errno::EIO\n1\n", peer.finish)
    map.close
    assert_raise(IOError) { map.flush }
  end

  # seccomp(2): from here on, `msync` fails with EIO.
  MSYNC = { "x86_64" => 26, "aarch64" => 227 }[RbConfig::CONFIG["host_cpu"]]
  NO_DISK = RbConfig::CONFIG["host_os"].start_with?("linux") && MSYNC && <<~RUBY
    require "fiddle"
    program = [0x20, 0, 0, 0, 0x15, 0, 1, #{MSYNC}, 0x06, 0, 0, 0x00050005, 0x06, 0, 0, 0x7fff0000].pack("SCCL" * 4)
    filter = [4, Fiddle::Pointer[program].to_i].pack("Sx6Q")
    prctl = Fiddle::Function.new(Fiddle.dlopen(nil)["prctl"], [Fiddle::TYPE_INT] + [Fiddle::TYPE_LONG] * 4, Fiddle::TYPE_INT)
    raise "no filter" unless prctl.call(38, 1, 0, 0, 0).zero? && prctl.call(22, 2, Fiddle::Pointer[filter].to_i, 0, 0).zero?
  RUBY

  def test_a_smaller_map_that_exists_is_seen
    first = map(name: unique, size: 100)
    second = map(name: unique, size: 1 << 20)
    # Windows counts whole pages.
    assert_operator(second.size, :<=, 4096)
    assert_raise(RangeError) { second.write_string("x" * 4097) }
    assert_equal(100, first.size)
  end

  def test_sizes_of_4_gib_and_more
    File.open(path, "w") { |file| file.truncate(5 << 30) }
    map = map(file: path)
    assert_equal(5 << 30, map.size)
    map.foo = "large"
    assert_equal("large", map.foo)
    assert_equal(true, map.flush(5 << 30))
    assert_raise(RangeError) { map.read_string((5 << 30) + 1) }
    assert_raise(RangeError) { map.flush((5 << 30) + 1) }
    # The far end is there: its last byte is the file's.
    Fiddle::Pointer.new(map.address + (5 << 30) - 1)[0] = 7
    assert_equal("\x07", File.binread(path, 1, (5 << 30) - 1))
  end

  def test_a_key_that_is_named_like_a_method_raises
    map = map(name: unique, size: 100)
    %i[hash class object_id send read_string to_ary to_str].each do |name|
      assert_raise(NameError) { map.public_send(:"#{name}=", 1) }
    end
    def map.special = 1
    assert_raise(NameError) { map.special = 2 }
    # What Ruby has for everybody to call without a receiver can be told apart.
    map.test = 1
    assert_equal(1, map.test)
  end

  # A peer cannot run code here.
  def test_objects_need_trust
    map = map(file: path, size: 1000)
    error = assert_raise(MMap::FormatError) { map.foo = Time.now }
    assert_match(/Time.*trusted/, error.message)
    trusted = map(file: path, trusted: true)
    trusted.time = Time.at(5)
    trusted.number = 7
    assert_equal([Time.at(5), 7], [trusted.time, trusted.number])
    assert_raise(MMap::FormatError) { map.time }
    assert_raise(MMap::FormatError) { map.other = 1 }
    assert_respond_to(trusted, :time)
    assert_not_respond_to(map, :time)
  end

  def test_what_is_no_hash_is_told_and_not_overwritten
    map = map(file: path, size: 64)
    ["plain text", Marshal.dump([1, 2]), "\x04\x08{\x06"].each do |content|
      map.write_string(content.ljust(64, "\xFF".b))
      assert_raise(MMap::FormatError, content.inspect) { map.foo }
      assert_raise(MMap::FormatError) { map.foo = 1 }
      assert_equal(content.b, map.read_string(content.bytesize))
    end
    map.write_string("\0\0")
    map.foo = 1
    assert_equal(1, map.foo)
  end
end
