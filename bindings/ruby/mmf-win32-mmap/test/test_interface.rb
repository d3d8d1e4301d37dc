# frozen_string_literal: true

require_relative "helper"

# The interface as the users of win32-mmap 0.4 know it.
class TestInterface < MMapTestCase
  def setup
    super
    @mmap = MMap.new(name: unique, size: 100)
    @maps << @mmap
  end

  def test_values_of_all_plain_types
    big = 2**100
    values = {
      text: "test", unicode: "grün", empty: "", binary: "\xFF\x00".b, ascii: "a".encode("US-ASCII"),
      shift: "あ".encode("Shift_JIS"), seven: 7, zero: 0, below: -300, big: big, small: -big, wide: 2**31, half: 1.5,
      endless: Float::INFINITY, tiny: 5e-324, yes: true, no: false, none: nil, symbol: :a, odd: :"ä b",
      list: [1, "x", [nil, 3]], table: { "foo" => 0, bar: [{ 1 => 2 }] }, range: 1..3, open: (1...), words: "a".."c"
    }
    map = map(name: "#{unique}-values", size: 10_000)
    values.each { |key, value| map.public_send(:"#{key}=", value) }
    values.each do |key, value|
      got = map.public_send(key)
      assert_equal(value, got, key)
      assert_equal(value.encoding, got.encoding, key) if value.is_a?(String) || value.is_a?(Symbol)
    end
    map.nan = Float::NAN
    assert_predicate(map.nan, :nan?)
  end

  def test_shared_and_cyclic_values
    twice = "twice"
    cycle = [1]
    cycle << cycle
    map = map(name: "#{unique}-links", size: 1000)
    map.pair = [twice, twice, twice]
    map.cycle = cycle
    map.default = Hash.new("none").merge!("a" => 1)
    a, b, = map.pair
    assert_same(a, b)
    got = map.cycle
    assert_same(got, got[1])
    assert_equal("none", map.default["missing"])
  end

  def test_defaults
    assert_equal([nil, unique, 4, 100, 2, 0, 10],
                 [@mmap.file, @mmap.name, @mmap.protection, @mmap.size, @mmap.access, @mmap.base_address, @mmap.timeout])
    assert_equal([true, false, false], [@mmap.autolock?, @mmap.inherit?, @mmap.trusted?])
    assert_kind_of(Integer, @mmap.address)
    assert_not_equal(0, @mmap.address)
  end

  def test_accessors
    %i[file name protection size access base_address timeout autolock inherit].each do |name|
      assert_respond_to(@mmap, :"#{name}=")
    end
    @mmap.size = 50
    assert_raise(RangeError) { @mmap.write_string("x" * 51) }
    assert_raise(RangeError) { @mmap.size = 1 << 40 }
    @mmap.autolock = false
    @mmap.timeout = 5
    assert_equal([50, false, 5], [@mmap.size, @mmap.autolock?, @mmap.timeout])
  end

  def test_options_by_symbols_and_strings_in_any_case
    map = MMap.new("NAME" => "#{unique}-case", :Size => 64, "timeOut" => 77, "autolock" => false, :INHERIT => true)
    @maps << map
    assert_equal(["#{unique}-case", 64, 77, false, true],
                 [map.name, map.size, map.timeout, map.autolock?, map.inherit?])
  end

  def test_an_unknown_option_raises
    assert_raise(ArgumentError) { MMap.new(foo: 1) }
    assert_raise(ArgumentError) { MMap.new(name: unique, size: -1) }
    assert_raise(ArgumentError) { MMap.new(name: unique, size: 10, protection: MMap::PAGE_NOACCESS) }
    assert_raise(ArgumentError) { MMap.new(name: unique, size: 10, protection: 4 | MMap::SEC_IMAGE) }
  end

  def test_blocks_get_the_address_and_close
    inside = nil
    map = MMap.new(file: path, size: 10) { |address| inside = address }
    assert_kind_of(Integer, inside)
    assert_predicate(map, :closed?)
    map = nil
    assert_raise(RuntimeError) { MMap.open(unique) { |_| raise "within" } }
    MMap.open(unique) { |address| assert_not_equal(0, address) }
  end

  def test_open_leaves_the_options_alone_and_finds_the_size
    options = { "timeout" => 3 }.freeze
    other = MMap.open(unique, options)
    @maps << other
    # Windows counts whole pages.
    assert_operator(other.size, :>=, 100)
    assert_equal(3, other.timeout)
    assert_raise(Errno::ENOENT) { MMap.open("#{unique}-missing") }
  end

  def test_strings
    assert_equal(5, @mmap.write_string("hello"))
    assert_equal("hello", @mmap.read_string(5))
    assert_equal(100, @mmap.read_string.bytesize)
    assert_equal(Encoding::BINARY, @mmap.read_string.encoding)
    @mmap.write_string("J")
    assert_equal("Jello", @mmap.read_string(5))
    assert_raise(TypeError) { @mmap.write_string(5) }
  end

  def test_constants_are_those_of_windows
    assert_equal([2, 4, 8, 0x40], [MMap::PAGE_READONLY, MMap::PAGE_READWRITE, MMap::PAGE_WRITECOPY,
                                   MMap::PAGE_EXECUTE_READWRITE])
    assert_equal([0x8000000, 0x4000000], [MMap::SEC_COMMIT, MMap::SEC_RESERVE])
    assert_equal([1, 2, 4, 983_071], [MMap::FILE_MAP_COPY, MMap::FILE_MAP_WRITE, MMap::FILE_MAP_READ,
                                      MMap::FILE_MAP_ALL_ACCESS])
  end

  def test_respond_to_tells_what_there_is
    assert_not_respond_to(@mmap, :foo)
    assert_respond_to(@mmap, :foo=)
    @mmap.foo = 1
    assert_respond_to(@mmap, :foo)
    assert_not_respond_to(@mmap, :hash=)
    assert_raise(NoMethodError) { @mmap.foo? }
    assert_raise(NoMethodError) { @mmap <= 1 }
    assert_raise(ArgumentError) { @mmap.foo(1) }
    assert_equal([@mmap], [@mmap].flatten)
  end

  def test_copies_on_write_stay_here
    @mmap.foo = 1
    copy = map(name: unique, access: MMap::FILE_MAP_COPY)
    copy.foo = 2
    assert_equal([1, 2], [@mmap.foo, copy.foo])
  end

  def test_inspect
    assert_match(/size=100/, @mmap.inspect)
    @mmap.close
    assert_match(/closed/, @mmap.inspect)
  end
end
