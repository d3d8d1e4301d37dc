# frozen_string_literal: true

require_relative "helper"
require "msgpack"
require "timeout"

class TestDict < MmfTestCase
  include Mmf

  def dict(**options)
    Dict.create(name: unique, capacity: 4 << 20, timeout: 60.0, **options)
  end

  def test_keys_and_values
    dict = dict()
    assert_equal([0, true, nil, {}, []], [dict.size, dict.empty?, dict[:none], dict.to_h, dict.keys])
    dict["one"] = 1
    dict[:two] = [2]
    assert_equal([1, [2]], [dict[:one], dict["two"]])
    assert_equal({ "one" => 1, "two" => [2] }, dict.to_h)
    assert_equal(%w[one two], dict.keys.sort)
    assert_equal([["one", 1], ["two", [2]]], dict.sort)
    assert_equal(%w[one two], dict.map { |key, _| key }.sort)
    assert_equal([true, true, false], [dict.key?(:one), dict.include?("two"), dict.key?("three")])
    assert_equal([2, 2], [dict.size, dict.each.size])
    dict.each { |key, _| dict.delete(key) }
    assert_nil(dict.delete(:one))
    dict[:last] = nil
    assert_equal([nil, true, nil], [dict[:last], dict.key?(:last), dict.fetch(:last, 5)])
    assert_same(dict, dict.clear)
    assert_equal(0, dict.size)
    assert_operator(dict.store(:a, 1), :<, dict.store(:b, 1))
    assert_equal([dict.store(:a, 2), nil], [dict.version(:a), dict.version(:none)])
    Dict.open(name: unique, access: :read_only) do |other|
      assert_equal([2, { "a" => 2, "b" => 1 }], [other[:a], other.to_h])
      assert_raise(ReadOnlyError) { other[:a] = 1 }
      assert_raise(ReadOnlyError) { other.delete(:a) }
    end
  end

  def test_fetch
    dict = dict()
    dict[:there] = false
    assert_equal([false, 1, "none"], [dict.fetch(:there, 1), dict.fetch(:none, 1), dict.fetch("none") { |key| key }])
    error = assert_raise(Mmf::KeyError) { dict.fetch(:none) }
    assert_kind_of(::KeyError, error)
    assert_equal([dict, :none], [error.receiver, error.key])
    assert_raise(ArgumentError) { dict.fetch(:none, 1, 2) }
  end

  def test_keys_are_text
    dict = dict()
    [1, nil, ["a"], "\xff", "\xff".b, "x" * 1025].each { |key| assert_raise(InvalidArgumentError) { dict[key] = 1 } }
    dict["grüße".encode("ISO-8859-1")] = 1
    assert_equal(["grüße"], dict.keys)
    assert_equal(Encoding::UTF_8, dict.keys.first.encoding)
    dict[""] = 2
    assert_equal(2, dict[""])
  end

  def test_attributes
    dict = dict()
    dict.foo = "hello"
    assert_equal(["hello", "hello"], [dict.foo, dict[:foo]])
    assert_equal([true, false, true], [dict.respond_to?(:foo), dict.respond_to?(:bar), dict.respond_to?(:bar=)])
    assert_equal("hello", dict.method(:foo).call)
    assert_raise(NoMethodError) { dict.bar }
    assert_raise(NoMethodError) { dict.bar! }
    assert_raise(ArgumentError) { dict.foo(1) }
    %w[size keys to_a to_ary class map timeout= each].each do |name|
      next assert_equal(60.0, dict.timeout) if name.end_with?("=")

      error = assert_raise(InvalidArgumentError) { dict.public_send("#{name}=", 1) }
      assert_match(/dict\["#{name}"\]/, error.message)
      assert_false(dict.respond_to?("#{name}="))
    end
    dict.define_singleton_method(:own) { 0 }
    assert_raise(InvalidArgumentError) { dict.own = 1 }
    # What has the name of a conversion does not become one.
    dict["to_ary"] = 1
    assert_equal([dict], [dict].flatten)
    # Ruby's private methods are nobody's attributes.
    dict.test = 1
    assert_equal(1, dict.test)
    assert_equal(%w[foo test to_ary], dict.keys.sort)
    Dict.open(name: unique, access: :read_only) { |other| assert_false(other.respond_to?(:foo=)) }
  end

  # What was once true of a name is not taken for true later.
  def test_attributes_come_and_go
    dict = dict()
    2.times do
      assert_raise(NoMethodError) { dict.foo }
      assert_false(dict.respond_to?(:foo))
      2.times { |n| assert_equal([n, n], [dict.foo = n, dict.foo]) }
      assert_true(dict.respond_to?(:foo))
      dict.define_singleton_method(:foo) { "method" }
      assert_raise(InvalidArgumentError) { dict.foo = 2 }
      assert_false(dict.respond_to?(:foo=))
      assert_equal(["method", 1], [dict.foo, dict[:foo]])
      dict.singleton_class.remove_method(:foo)
      dict.foo = 2
      assert_equal([2, 2], [dict.foo, dict.delete(:foo)])
    end
    Dict.class_eval { def late = "method" } if (dict.late = 1)
    assert_raise(InvalidArgumentError) { dict.late = 2 }
    Dict.remove_method(:late)
    assert_equal(1, dict.late)
    # More names than are remembered, plain ones and those that only this test has.
    names = Array.new(500) { |n| "name#{n}" } << "grüße" << "_" << "x" * 200
    2.times do |round|
      names.each { |name| dict.public_send("#{name}=", [name, round]) }
      names.each { |name| assert_equal([name, round], dict.public_send(name)) }
    end
    dict.clear
    names.each { |name| assert_raise(NoMethodError) { dict.public_send(name) } }
    assert_raise(NoMethodError) { dict.public_send("with space") }
    assert_raise(NoMethodError) { dict.public_send("with space=", 1) }
    assert_raise(NoMethodError) { dict.public_send("1st=", 1) }
    assert_empty(dict)
  end

  def test_one_name_belongs_to_every_dict
    one = dict()
    one.shared = 1
    Dict.create(name: "#{unique}-2", capacity: 1 << 20) do |two|
      assert_raise(NoMethodError) { two.shared }
      assert_false(two.respond_to?(:shared))
      two.shared = 2
      assert_equal([1, 2], [one.shared, two.shared])
    end
  end

  def test_update_and_increment
    dict = dict()
    assert_equal(1, dict.update(:n) { |old| old.to_i + 1 })
    # Somebody else came between: again.
    rounds = 0
    dict.update(:n) do |old|
      dict[:n] = 10 if (rounds += 1) == 1
      old + 1
    end
    assert_equal([2, 11], [rounds, dict[:n]])
    assert_raise(ContendedError) { dict.update(:n, timeout: 0) { dict[:n] = 1 } }
    assert_raise(RuntimeError) { dict.update(:n) { raise "within" } }
    assert_equal([2, 12, 9, -1], [dict.increment(:n), dict.increment(:n, 10), dict.increment(:n, -3), dict.increment(:m, -1)])
    dict[:n] = "text"
    assert_raise(MismatchError) { dict.increment(:n) }
    dict[:n] = (1 << 63) - 1
    assert_raise(InvalidArgumentError) { dict.increment(:n) }
  end

  def test_transactions
    dict = dict()
    dict[:ann] = 100
    kept = nil
    result = dict.transaction do |tx|
      kept = tx
      tx[:ann] -= 30
      tx["ben"] = 30
      tx[:gone] = 1
      assert_equal([70, 30, 1], [tx[:ann], tx.fetch(:ben), tx.delete(:gone)])
      assert_equal([true, false, nil], [tx.key?(:ben), tx.key?(:gone), tx.delete(:never)])
      assert_raise(Mmf::KeyError) { tx.fetch(:gone) }
      assert_equal([100, nil], [dict[:ann], dict[:ben]])
      assert_raise(DeadlockError) { dict[:ann] = 1 }
      assert_raise(DeadlockError) { dict.transaction {} }
      assert_raise(InvalidArgumentError) { tx[:bad] = Object.new }
      :done
    end
    assert_equal([:done, { "ann" => 70, "ben" => 30 }], [result, dict.to_h])
    assert_raise(ReadOnlyError) { kept[:ann] = 1 }
    assert_nil(dict.transaction { |tx| tx[:ann] = 0; tx.abort; flunk })
    assert_raise(RuntimeError) { dict.transaction { |tx| tx[:ann] = 0; raise "within" } }
    catch(:out) { dict.transaction { |tx| tx[:ann] = 0; throw :out } }
    assert_raise(Timeout::Error) { Timeout.timeout(0.05) { dict.transaction { |tx| tx[:ann] = 0; sleep } } }
    assert_equal(70, dict[:ann])
    # As PStore does.
    assert_equal(5, dict.transaction { |tx| tx[:ann] = 1; break 5 })
    assert_equal(1, dict[:ann])
    assert_equal(6, returns_within(dict))
    assert_equal(2, dict[:ann])
    assert_equal([2, nil], dict.transaction(read_only: true) { |tx| [tx[:ann], tx[:none]] })
    assert_raise(ReadOnlyError) { dict.transaction(read_only: true) { |tx| tx[:ann] = 1 } }
    assert_nil(dict.transaction(read_only: true, &:abort))
    Dict.open(name: unique, access: :read_only) do |other|
      assert_equal(2, other.transaction(read_only: true) { |tx| tx[:ann] })
      assert_raise(ReadOnlyError) { other.transaction { |tx| tx[:ann] = 1 } }
    end
    assert_raise(InvalidArgumentError) { dict.transaction { |tx| tx[:ann] = 3; tx["x" * 2000] = 1 } }
    assert_equal(2, dict[:ann])
  end

  def returns_within(dict)
    dict.transaction do |tx|
      tx[:ann] = 2
      return 6
    end
  end

  SAMPLES = [
    nil, true, false, 0, 1, 127, 128, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
    -1, -32, -33, -128, -129, -32_768, -32_769, -(1 << 31), -(1 << 31) - 1, -(1 << 63), 0.0, 1.5, -1e300, Float::INFINITY,
    "", "text", "grüße €", "x" * 31, "x" * 32, "x" * 255, "x" * 256, "x" * 65_536, "\xff\x00".b, "y".b * 256, "z".b * 65_536, [],
    [1, [2, ["three"]]], (0..15).to_a, (0..65_536).to_a, {}, { "a" => { "b" => [nil] } }, (0..16).to_h { |n| [n.to_s, n] },
    (0..65_536).to_h { |n| [n, n] }, { 1 => 2, nil => 3, [4] => 5 }
  ].freeze

  def test_values_have_the_same_bytes_as_another_encoder_gives
    dict = dict(capacity: 64 << 20)
    SAMPLES.each do |value|
      assert_equal(value.to_msgpack, Dict.encode(value), value.inspect[0, 60])
      dict[:value] = value
      assert_equal([value, value.class], [dict[:value], dict[:value].class])
      assert_equal(value.encoding, dict[:value].encoding) if value.is_a?(String)
    end
    dict[:value] = { key: :value, "text" => "grüße".encode("UTF-16LE") }
    assert_equal({ "key" => "value", "text" => "grüße" }, dict[:value])
    dict[:value] = Float::NAN
    assert_predicate(dict[:value], :nan?)
    # Equal and ordered as they were.
    values = [3, -1.5, 1 << 63, 2]
    dict[:value] = values
    assert_equal(values.sort, dict[:value].sort)
    assert_equal(values.max, dict[:value].max)
  end

  def test_what_cannot_be_held_raises_and_the_old_value_stays
    dict = dict()
    dict[:value] = "old"
    endless = []
    endless << endless
    [Object.new, 1r, 1i, 1..2, Time.now, [[:a, Object.new]], { a: Class }, "\xff", endless, Struct.new(:a).new(1)].each do |value|
      assert_raise(InvalidArgumentError) { dict[:value] = value }
    end
    [1 << 64, -(1 << 63) - 1, 1 << 200, -(1 << 200)].each { |value| assert_raise(OutOfBoundsError) { dict[:value] = value } }
    assert_raise(FullError, InvalidArgumentError) { dict[:value] = "x" * (8 << 20) }
    assert_equal("old", dict[:value])
  end

  def nested(depth)
    depth.times.inject(1) { |inner, _| [inner] }
  end

  def test_everything_at_once_may_take_longer_than_a_lock_is_waited_for_at_a_time
    dict = dict(capacity: 512 << 20)
    # At least 50 ms of work for one call.
    count = 400_000
    count.times { |n| dict["key #{n}"] = n }
    assert_equal(count, dict.keys.size)
    assert_equal([count, count * (count - 1) / 2], [dict.to_h.size, dict.sum { |_, value| value }])
    Dict.open(name: unique, access: :read_only) { |other| assert_equal(count, other.keys.size) }
    assert_same(dict, dict.clear)
  end

  def test_depth
    dict = dict()
    # A fiber has the smallest stack.
    Fiber.new { dict[:deep] = nested(64) }.resume
    assert_equal(nested(64), Fiber.new { dict[:deep] }.resume)
    assert_raise(InvalidArgumentError) { dict[:deep] = nested(65) }
    hashes = 64.times.inject(1) { |inner, _| { "a" => inner } }
    Fiber.new { dict[:deep] = hashes }.resume
    assert_equal(hashes, Fiber.new { dict[:deep] }.resume)
    assert_raise(MismatchError) { Dict.decode(nested(65).to_msgpack) }
  end

  def test_bytes_of_others_are_read_or_refused
    # Longer forms than needed, and half as many bytes of a float.
    assert_equal([1, 1, -1, 1.5], ["\xd9\x00", "\xcf#{"\0" * 7}\1", "\xd3#{"\xff" * 8}", "\xca\x3f\xc0\0\0"].map do |bytes|
      value = Dict.decode(bytes.b)
      value == "" ? 1 : value
    end)
    bad = ["", "\xc1", "\xc0\xc0", "\x91", "\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff\1\1", "\xdb\xff\xff\xff\xffx", "\xa5abc",
           "\xc6\xff\xff\xff\xff", "\xcf\0", "\xd4\0\0", "\xc7\1\0\0", "\x82\1\2\3"]
    bad.each { |bytes| assert_raise(MismatchError, bytes.inspect) { Dict.decode(bytes.b) } }
    random = Random.new(1)
    2000.times do
      Dict.decode(random.bytes(random.rand(40)))
    rescue MismatchError
      nil
    end
  end

  def test_a_larger_capacity_than_the_most_is_refused
    dict = dict()
    dict[:a] = 1
    error = assert_raise(MismatchError) { Dict.open(name: unique, max_capacity: 2 << 20) }
    assert_match(/#{unique}.*#{dict.capacity} bytes.*raise `max_capacity`/, error.message)
    assert_raise(MismatchError) { Dict.open(name: unique, max_capacity: 2 << 20, access: :read_only) }
    assert_raise(MismatchError) { Dict.open_or_create(name: unique, capacity: 1 << 20, max_capacity: 2 << 20) }
    error = assert_raise(InvalidArgumentError) { Dict.create(file: path, capacity: 4 << 20, max_capacity: 2 << 20) }
    assert_match(/raise `max_capacity`/, error.message)
    assert_false(File.exist?(path))
    [dict.capacity, nil].each do |most|
      Dict.open(name: unique, max_capacity: most) { |other| assert_equal(1, other[:a]) }
    end
    # A handle that a forked child opens keeps to the options.
    other = Dict.open(name: unique, max_capacity: dict.capacity, capacity: 1 << 20)
    pid = fork { exit!(other[:a] == 1) }
    assert_predicate(Process.wait2(pid).last, :success?)
  end

  def test_the_timeout_and_the_work_time_of_a_handle_limit_long_scans
    dict = Dict.create(name: unique, capacity: 1 << 30, timeout: 60)
    assert_equal([60, 0.05], [dict.timeout, dict.work_time])
    count = 0
    cpu = -> { Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) }
    loop do
      100_000.times { dict[(count += 1).to_s] = nil }
      began = cpu.call
      dict.keys
      # Listing them takes several times the 50 ms that a call has at least.
      break if cpu.call - began >= 0.3
    end
    too_slow = -> { assert_raise(Mmf::TimeoutError) { dict.keys } }
    dict.timeout = 0
    too_slow.call
    dict.timeout = 60
    assert_equal(count, dict.keys.size)
    pid = fork { exit!(dict.keys.size == count) }
    assert_predicate(Process.wait2(pid).last, :success?)
    dict.timeout = 0
    too_slow.call
    dict.work_time = 60
    assert_equal([60, count], [dict.work_time, dict.keys.size])
    dict.work_time = 0.01
    too_slow.call
    dict.timeout = nil
    assert_equal(count, dict.keys.size)
    dict.timeout = 0.01
    dict.work_time = nil
    assert_equal([nil, count], [dict.work_time, dict.keys.size])
    Dict.open(name: unique, timeout: 0.01, work_time: 60) { |other| assert_equal(count, other.keys.size) }
  end

  def test_the_end
    dict = dict()
    assert_match(/\A#<Mmf::Dict name:#{unique} size=0 capacity=\d+>\z/, dict.inspect)
    assert_same(dict, dict.flush)
    2.times { assert_nil(dict.close) }
    assert_equal([true, "#<Mmf::Dict closed>", false], [dict.closed?, dict.inspect, dict.respond_to?(:foo)])
    [-> { dict[:a] }, -> { dict.a }, -> { dict.a = 1 }, -> { dict.size }, -> { dict.transaction {} }, -> { dict.each {} }].each do |use|
      assert_raise(ClosedError, &use)
    end
    assert_raise(NotFoundError) { Dict.open(name: unique) }
    Dict.create(file: path, capacity: 1 << 20) { |one| one[:kept] = 1 }
    Dict.open(file: path) { |one| assert_equal(1, one.flush[:kept]) }
    Region.create(name: unique, capacity: 4096) { assert_raise(MismatchError, NotASegmentError) { Dict.open(name: unique) } }
    assert_raise(InvalidArgumentError) { Dict.create(name: unique) }
    # One that nobody holds any more is closed by the garbage collector.
    20.times { |nth| Dict.create(name: "#{unique}-#{nth}", capacity: 1 << 20)[:a] = nth }
    GC.start
  end
end
