# frozen_string_literal: true

require_relative "helper"
require "timeout"

# Several processes, killed ones among them; and threads, forks and the garbage collector.
class TestProcesses < MMapTestCase
  # The example of win32-mmap's README, its two halves in processes of their own.
  EXAMPLE = <<~'RUBY'
    require 'win32/mmap'
    include Win32

    map1 = MMap.new(:file => "C:\\test.map", :size => 1024)
    map1.foo = 'hello'
    map1.bar = 77
    map1.close

    map2 = MMap.new(:file => "C:\\test.map")
    p map2.foo # 'hello'
    p map2.bar # 77
    map2.close
  RUBY

  def test_the_example_of_the_old_readme_runs_word_for_word
    first, second = EXAMPLE.split(/^(?=map2 = )/)
    Dir.chdir(@directory) do
      # In one process, then in two.
      assert_equal("\"hello\"\n77\n", Peer.new(EXAMPLE).finish)
      File.delete("C:\\test.map")
      assert_equal("", Peer.new(first).finish)
      assert_equal("\"hello\"\n77\n", Peer.new("include Win32; #{second}").finish)
    end
  end

  def test_the_example_runs_by_name_in_two_processes
    first, second = EXAMPLE.gsub(/:file => "[^"]*"/, ":name => ARGV[0]").split(/^(?=map2 = )/)
    # A name lives as long as somebody has it open.
    setter = Peer.new(first.sub("map1.close", "puts :set; $stdin.gets; map1.close"), unique)
    assert_equal("set", setter.hear)
    assert_equal("\"hello\"\n77\n", Peer.new(second, unique).finish)
    setter.finish
  end

  def test_the_bytes_are_those_that_plain_ruby_writes
    # As the old gem makes them: a hash with string keys, dumped at offset 0.
    hash = { "foo" => "hello", "bar" => 77, "list" => [1.5, 1.5, :a, :a, nil, { "b" => :a }], "enc" => "é".encode("UTF-16LE") }
    map = map(file: path, size: 1000)
    hash.each { |key, value| map.public_send(:"#{key}=", value) }
    bytes = Marshal.dump(hash)
    assert_equal(bytes, File.binread(path, bytes.bytesize))
    # And the other way.
    theirs = hash.merge("baz" => 2**70, "foo" => 1..2)
    File.binwrite(path("theirs"), Marshal.dump(theirs).ljust(2000, "\xFF".b))
    map = map(file: path("theirs"))
    theirs.each { |key, value| assert_equal(value, map.public_send(key)) }
    map.bar = 78
    bytes = Marshal.dump(theirs.merge("bar" => 78))
    assert_equal(bytes, File.binread(path("theirs"), bytes.bytesize))
  end

  def test_processes_that_set_at_the_same_time_lose_nothing
    map = map(file: path, size: 4096)
    peers = %w[a b c].map do |key|
      Peer.new("map = MMap.new(file: ARGV[0], timeout: 60_000); 300.times { |i| map.#{key} = i }", path)
    end
    peers.each(&:finish)
    assert_equal([299, 299, 299], [map.a, map.b, map.c])
  end

  # Killed anywhere in a setter, again and again: every value is an old or a new one, whole.
  def test_a_killed_setter_leaves_whole_values_and_no_lock
    map = map(file: path, size: 1 << 20)
    map.kept = "kept"
    20.times do |round|
      peer = Peer.new(<<~RUBY, path)
        map = MMap.new(file: ARGV[0], timeout: 60_000)
        map.big = "0" * 300_000
        puts "ready"
        loop { |i| ("a".."z").each { |letter| map.big = letter * (200_000 + letter.ord * 1000) } }
      RUBY
      assert_equal("ready", peer.hear)
      sleep(rand * 0.01)
      peer.kill
      value = map.big
      letter = value[0]
      assert_equal(letter == "0" ? 300_000 : 200_000 + (letter.ord * 1000), value.count(letter), "round #{round}")
      assert_equal([value.size, "kept"], [value.count(letter), map.kept])
      map.round = round
    end
  end

  def test_a_killed_holder_is_noticed
    map = map(name: unique, size: 4096)
    map.foo = 1
    holder = Peer.new(<<~RUBY, unique)
      map = MMap.new(name: ARGV[0], trusted: true)
      map.send(:instance_variable_get, :@native).change(10.0) { puts "inside"; sleep }
    RUBY
    assert_equal("inside", holder.hear)
    map.timeout = 10
    assert_raise(MMap::TimeoutError) { map.foo }
    holder.kill
    map.timeout = 60_000
    map.bar = 2
    assert_equal([1, 2], [map.foo, map.bar])
  end

  def with_the_lock_elsewhere
    map = map(name: unique, size: 4096, timeout: nil)
    map.timeout = -1
    holder = Peer.new(<<~RUBY, unique)
      map = MMap.new(name: ARGV[0], trusted: true)
      map.send(:instance_variable_get, :@native).change(10.0) { puts "inside"; $stdin.gets; nil }
    RUBY
    assert_equal("inside", holder.hear)
    yield map
    holder.finish
  end

  def test_a_wait_lets_other_threads_run_and_can_be_broken_off
    with_the_lock_elsewhere do |map|
      waiter = Thread.new { map.foo }
      waiter.report_on_exception = false
      # Runs, though the other one waits without end.
      Thread.pass until waiter.stop?
      waiter.raise(ArgumentError, "enough")
      assert_raise(ArgumentError) { waiter.join(60) }
      assert_raise(Timeout::Error) { Timeout.timeout(0.1) { map.foo = 1 } }
    end
  end

  def test_a_wait_ends_by_ctrl_c
    with_the_lock_elsewhere do
      peer = Peer.new(<<~RUBY, unique)
        map = MMap.new(name: ARGV[0], timeout: -1)
        trap(:USR1) { puts "trapped" }
        begin
          puts "waiting"
          map.foo
        rescue Interrupt
          puts "interrupted"
        end
      RUBY
      assert_equal("waiting", peer.hear)
      Process.kill(:USR1, peer.pid)
      # A handler that raises nothing does not end it.
      assert_equal("trapped", peer.hear)
      Process.kill(:INT, peer.pid)
      assert_equal("interrupted\n", peer.finish)
    end
  end

  def test_forked_children_go_on_with_their_parents_maps
    maps = [map(name: unique, size: 4096), map(file: path, size: 4096), map(size: 4096)]
    maps.each { |map| map.parent = $$ }
    pid = fork do
      ok = maps.map { |map| [map.parent, (map.child = $$), map.child] } == [[Process.ppid, $$, $$]] * 3
      maps.each(&:close)
      exit!(ok)
    end
    assert_predicate(Process.wait2(pid).last, :success?)
    maps.each { |map| assert_equal([$$, pid], [map.parent, map.child]) }
  end

  def test_threads_share_a_map
    map = map(name: unique, size: 4096)
    threads = %w[a b c d].map { |key| Thread.new { 100.times { |i| map.public_send("#{key}=", i) } } }
    threads.each(&:join)
    assert_equal([99] * 4, [map.a, map.b, map.c, map.d])
  end

  def test_the_garbage_collector_closes_and_moves_nothing_it_should_not
    name = unique
    100.times { |i| MMap.new(file: path("gc"), size: 1000).foo = [i.to_s] * 20 }
    GC.start
    map = map(file: path("gc"))
    GC.stress = true
    value = begin
      map.foo
    ensure
      GC.stress = false
    end
    assert_equal(["99"] * 20, value)
    GC.compact if GC.respond_to?(:compact)
    assert_equal(["99"] * 20, map.foo)
    assert_raise(Errno::ENOENT) { MMap.open(name) }
  end
end
