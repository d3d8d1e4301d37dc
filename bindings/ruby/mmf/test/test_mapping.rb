# frozen_string_literal: true

require_relative "helper"

class TestMapping < MmfTestCase
  include Mmf

  def test_blocks_close_and_give_their_value
    kept = nil
    value = Mapping.create(name: unique, size: 4096) do |map|
      kept = map
      map.pwrite("hello", 100)
      Mapping.open(name: unique) { |other| other.pread(5, 100) }
    end
    assert_equal("hello", value)
    assert_predicate(kept, :closed?)
    assert_raise(NotFoundError) { Mapping.open(name: unique) }
    assert_raise(RuntimeError) { Mapping.anonymous(10) { raise "within" } }
  end

  def test_closing_twice_is_harmless_and_use_afterwards_is_told
    map = Mapping.anonymous(4096)
    2.times { assert_nil(map.close) }
    %i[size refresh address name].each { |name| assert_raise(ClosedError, &map.method(name)) }
    assert_raise(ClosedError) { map.pread(1, 0) }
    assert_raise_kind_of(IOError) { map.pwrite("x", 0) }
    assert_match(/closed/, map.inspect)
  end

  def test_bytes_by_place
    map = Mapping.anonymous(10)
    size = map.size
    map[0, 5] = "hello"
    assert_equal(["hello", "ello", "hell", 104], [map[0, 5], map[1..4], map[0...4], map[0]])
    map[0] = 72
    map[1..2] = "EL"
    assert_equal("HELlo", map.pread(5, 0))
    map[-1] = 1
    assert_equal([1, "\x01".b], [map[-1], map[(size - 1)..]])
    assert_equal(Encoding::BINARY, map[0, 5].encoding)
    assert_raise(InvalidArgumentError) { map[0, 5] = "four" }
    assert_raise(InvalidArgumentError) { map[0] = 256 }
    assert_raise(OutOfBoundsError) { map.pread(1, size) }
    assert_raise_kind_of(RangeError) { map.pwrite("xx", size - 1) }
    map.fill(7)
    assert_equal("\x07".b * size, map.pread(size, 0))
    # Lengths are bytes.
    assert_equal(2, map.pwrite("ä", 0))
  end

  def test_more_than_4_gib
    far = (5 << 30) - 3
    File.open(path, "w") { |file| file.truncate(5 << 30) }
    Mapping.open(file: path) do |map|
      map.pwrite("end", far)
      map[-3] = 69
      map.sync(far, 3)
      assert_equal([5 << 30, "End", "End", 69], [map.size, map.pread(3, far), map[far..], map[far]])
      assert_equal(1, map.seek(far + 1) + 1)
      assert_equal(["nd", nil], [map.read, map.read(1)])
      assert_raise(OutOfBoundsError) { map.pwrite("ends", far) }
      assert_equal(7, map.fetch_add(:u8, far - 1, 7) + map.load(:u8, far - 1))
    end
    assert_equal("\x07End", File.binread(path, 4, far - 1))
  end

  def test_into_a_buffer
    map = Mapping.create(file: path, size: 8192)
    map.pwrite("hello" * 100, 0)
    [+"", +"grüße", "x" * 5000, "shared " * 20].each do |buffer|
      copy = buffer.dup
      [0, 3, 500].each do |length|
        assert_same(buffer, map.pread(length, 0, buffer))
        assert_equal([("hello" * 100)[0, length], Encoding::BINARY], [buffer, buffer.encoding])
      end
      # What had the same bytes has its own now.
      assert_not_equal(buffer, copy)
    end
    buffer = +"as it was"
    [[1, 8192], [8193, 0], [1 << 62, 0], [1, (1 << 63) - 1]].each do |length, offset|
      assert_raise(OutOfBoundsError) { map.pread(length, offset, buffer) }
    end
    assert_equal("as it was", buffer)
    assert_raise(FrozenError) { map.pread(1, 0, "frozen".freeze) }
    assert_raise(TypeError) { map.pread(1, 0, 5) }
    assert_equal(["hel", "loh"], [map.read(3, buffer).dup, map.read(3, buffer)])
    assert_same(buffer, map.read(nil, buffer))
    assert_equal(8186, buffer.bytesize)
    assert_nil(map.read(1, buffer))
    assert_equal("", buffer)
    # A page that is gone leaves nothing that could pass for bytes.
    File.truncate(path, 4096)
    buffer = +"as it was"
    assert_raise(FaultError) { map.pread(8192, 0, buffer) }
    assert_equal("", buffer)
    assert_raise(FaultError) { map.pread(8192, 0) }
  end

  def test_as_a_stream
    map = Mapping.open_or_create(file: path, size: 10)
    assert_equal(7, map.write("ab", "cdefg"))
    map << "h" << :i
    assert_equal([9, false], [map.pos, map.eof?])
    map.rewind
    assert_equal(%w[abc defghi], [map.read(3), map.read.delete("\0")])
    assert_equal([true, nil, "", ""], [map.eof?, map.read(1), map.read, map.read(0)])
    map.seek(-8, IO::SEEK_END)
    map.seek(1, :CUR)
    assert_equal("def", map.read(3))
    assert_raise(InvalidArgumentError) { map.seek(-1) }
    map.seek(100)
    assert_equal([nil, ""], [map.read(1), map.read])
    assert_raise(OutOfBoundsError) { map.write("x") }
    map.flush.sync(0, 4)
    assert_equal("abcdefghi\0", File.binread(path))
  end

  def test_numbers_that_all_processes_agree_on
    map = Mapping.anonymous(64)
    assert_equal([0, 5, 7], [map.fetch_add(:u32, 0, 5), map.swap(:u32, 0, 7), map.load(:u32, 0)])
    assert_equal([7, 9], [map.compare_exchange(:u32, 0, 7, 9), map.compare_exchange(:u32, 0, 7, 1)])
    map.store(:i64, 8, -(2**63))
    assert_equal([-(2**63), 2**63], [map.load(:i64, 8), map.load(:u64, 8)])
    assert_raise(MisalignedError) { map.load(:u64, 4) }
    assert_raise(RangeError) { map.store(:u8, 0, 256) }
    assert_raise(InvalidArgumentError) { map.load(:u128, 0) }
    map.store(:u64, 0, 0)
    pids = Array.new(2) { fork { 1000.times { map.fetch_add(:u64, 0, 1) } && exit!(true) } }
    pids.each { |pid| Process.wait(pid) }
    assert_equal(2000, map.load(:u64, 0))
  end

  def test_growing
    map = Mapping.create(name: unique, size: 4096, reserve: 1 << 20)
    other = Mapping.open(name: unique)
    map.grow(8192)
    map.pwrite("far", 8000)
    assert_equal("far", other.pread(3, 8000))
    assert_raise(InvalidArgumentError) { map.grow(1 << 30) }
  end

  def test_options
    File.write(path, "0123456789")
    part = Mapping.open(file: path, part: 2..4, access: :read_only)
    assert_equal(["234", :read_only], [part.read, part.access])
    assert_raise(ReadOnlyError) { part.pwrite("x", 0) }
    copy = Mapping.open(file: path, access: :copy_on_write)
    copy[0] = 65
    assert_equal(["A", "0123456789"], [copy[0, 1], File.read(path)])
    file = Mapping.create(file: path("new"), size: 10, permissions: 0o640)
    assert_equal(0o640, File.stat(path("new")).mode & 0o777)
    assert_equal("file:#{path("new")}", file.source)
    assert_raise(InvalidArgumentError) { Mapping.open(nmae: "x") }
    assert_raise(InvalidArgumentError) { Mapping.open(name: "x", colour: 1) }
    assert_raise(InvalidArgumentError) { Mapping.open(name: "x", file: "y") }
    assert_raise(InvalidArgumentError) { Mapping.open(name: "x", access: :maybe) }
    assert_raise(InvalidNameError) { Mapping.open(name: "a/b") }
    assert_raise(MismatchError) { Mapping.open(file: path, size: 100) }
    assert_raise(NoMethodError) { Mapping.new }
    assert_raise(NoMethodError) { Mapping.native_open(:open, {}) }
  end

  def test_exceptions_are_kin_of_those_of_ruby
    error = assert_raise(NotFoundError) { Mapping.open(name: unique) }
    assert_kind_of(Mmf::Error, error)
    assert_kind_of(Errno::ENOENT, error)
    assert_equal(Errno::ENOENT::Errno, error.errno)
    assert_match(/name:#{unique}/, error.message)
    Mapping.create(name: unique, size: 10) do
      assert_raise(AlreadyExistsError) { Mapping.create(name: unique, size: 10) }
    end
    assert_raise(UnsupportedError) { Mapping.open(file: @directory) }
  end

  def test_a_page_that_is_gone_is_an_exception
    page = 65_536
    File.write(path, "x" * (page * 2))
    map = Mapping.open(file: path)
    File.truncate(path, page)
    assert_raise(FaultError) { map.pread(10, page + 10) }
    assert_raise(FaultError) { map.pwrite("x", page + 10) }
    assert_equal("x", map.pread(1, 0))
  end

  def test_two_processes
    map = Mapping.create(name: unique, size: 4096)
    peer = Peer.new("map = Mmf::Mapping.open(name: ARGV[0]); map.pwrite('there', 0); puts map.size; $stdin.gets", unique)
    assert_equal(map.size.to_s, peer.hear)
    assert_equal("there", map.pread(5, 0))
    peer.kill
    assert_equal("there", map.pread(5, 0))
  end

  def test_the_garbage_collector_closes_what_nobody_has
    files = -> { Dir.children("/proc/self/fd").size }
    before = files.call
    300.times { |i| Mapping.create(name: "#{unique}-#{i}", size: 4096).pwrite("x", 0) }
    GC.start
    # The collector may take some last ones for living, each with up to two descriptors.
    assert_operator(files.call, :<, before + 100)
  end
end
