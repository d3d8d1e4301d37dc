# frozen_string_literal: true

require_relative "helper"
require "timeout"

class TestDictProcesses < MmfTestCase
  include Mmf

  # Tells when it is inside a transaction, and stays there until it is told to go on.
  HOLDER = <<~RUBY
    Mmf::Dict.open(name: ARGV[0]).transaction do |tx|
      tx[:a] = 1
      tx[:b] = 1
      puts "inside"
      $stdin.gets
    end
  RUBY

  def dict(**options)
    Dict.create(name: unique, capacity: 4 << 20, timeout: 60.0, **options)
  end

  def test_rust_and_ruby_read_each_other
    manifest = File.expand_path("../../Cargo.toml", __dir__)
    oracle = ["cargo", "run", "--quiet", "--release", "--manifest-path", manifest, "--package", "mmf_ruby_oracle",
              "--target-dir", File.expand_path("../../target", __dir__), "--"]
    Dict.create(file: path, capacity: 64 << 20) do |dict|
      assert_true(system(*oracle, "write", path))
      entries = dict.to_h
      assert_equal([nil, true, false, 1.5, Float::INFINITY], entries.values_at(*%w[nil true false float infinity]))
      assert_equal(["grüße €", Encoding::UTF_8], [entries["unicode"], entries["unicode"].encoding])
      assert_equal(["\0\xff".b, Encoding::BINARY], [entries["bytes"], entries["bytes"].encoding])
      assert_equal([{ "x" => -5, "label" => "here" }, [[{ "x" => 1, "label" => nil }]]], entries.values_at("point", "nested"))
      numbers = entries.select { |key, _| key.start_with?("int ") }
      assert_equal(22, numbers.size)
      numbers.each { |key, value| assert_equal(key, "int #{value}") }
      %w[text list map].each do |kind|
        some = entries.select { |key, _| key.start_with?("#{kind} ") }
        assert_operator(some.size, :>=, 4)
        some.each { |key, value| assert_equal(key, "#{kind} #{value.size}") }
      end
      dict.clear
      entries.each { |key, value| dict[key] = value }
      assert_true(system(*oracle, "read", path))
    end
  end

  def test_two_processes_share_attributes
    dict = dict()
    dict.foo = "hello"
    peer = Peer.new("dict = Mmf::Dict.open(name: ARGV[0]); puts dict.foo; dict.bar = [dict.foo]; puts dict.keys.sort.join", unique)
    assert_equal(["hello", "barfoo"], [peer.hear, peer.hear])
    peer.finish
    assert_equal(["hello"], dict.bar)
  end

  # As people try it: a line here, a line there.
  class Console < Peer
    def initialize(*lines)
      @pipe = IO.popen([RbConfig.ruby, "-I", LIBRARY, "-rirb", "-e", "IRB.start", "--", "-f", "--noprompt"], "r+")
      lines.each { |line| say(line) }
    end

    # What a line gives, among all else that irb says.
    def tell(line)
      say("puts \"told: \#{(#{line}).inspect}\"")
      heard = hear or raise "it has ended" until heard&.start_with?("told: ")
      heard.delete_prefix("told: ")
    end
  end

  def test_two_irbs_share_attributes
    lines = ["require 'mmf'", "dict = Mmf::Dict.open_or_create(name: '#{unique}', capacity: 1 << 20)"]
    here, there = Array.new(2) { Console.new(*lines) }
    assert_equal('"hello"', here.tell("dict.greeting = 'hello'"))
    assert_equal('"hello"', there.tell("dict.greeting"))
    there.say("dict.list = [dict.greeting, 77]")
    assert_equal("true", there.tell("dict.respond_to?(:list)"))
    assert_equal('["hello", 77]', here.tell("dict.list"))
    [here, there].each(&:finish)
  end

  def test_a_killed_transaction_never_was
    dict = dict()
    dict[:a] = 0
    peer = Peer.new(HOLDER, unique)
    assert_equal("inside", peer.hear)
    assert_equal([0, nil], [dict[:a], dict[:b]])
    error = assert_raise(Mmf::TimeoutError) { dict.transaction(timeout: 0.05) { flunk } }
    assert_match(/process #{peer.pid}/, error.message)
    peer.kill
    dict[:c] = 2
    assert_equal({ "a" => 0, "c" => 2 }, dict.to_h)
    peer = Peer.new(HOLDER, unique)
    assert_equal("inside", peer.hear)
    peer.finish
    assert_equal({ "a" => 1, "b" => 1, "c" => 2 }, dict.to_h)
  end

  def test_killed_writers_leave_whole_values
    dict = dict()
    code = "dict = Mmf::Dict.open(name: ARGV[0]); n = 0; puts 'on'; loop { n += 1; dict[:n] = [n] * 500; dict.transaction { |tx| tx[:a] = tx[:b] = n } }"
    5.times do
      peer = Peer.new(code, unique)
      assert_equal("on", peer.hear)
      version = dict.version(:a)
      Timeout.timeout(60) { Thread.pass until dict.version(:a) != version }
      peer.kill
      dict[:mine] = 1
      assert_equal([500, 1], [dict[:n].size, dict[:n].uniq.size])
      assert_equal(dict[:a], dict[:b])
    end
  end

  def test_watching
    dict = dict()
    assert_equal([], dict.watch(timeout: 0.01).to_a)
    peer = Peer.new(<<~RUBY, unique)
      dict = Mmf::Dict.open(name: ARGV[0])
      dict.watch(prefix: "seen.") { |key, value, version| puts [key.inspect, value.inspect, version].join(" "); break if value == "end" }
    RUBY
    # It tells of nothing that came before it watched.
    Timeout.timeout(60) { dict["seen.first"] = 0 until peer.speaks? }
    version = dict.store("seen.second", 1)
    line = peer.hear
    line = peer.hear until line.start_with?('"seen.second"')
    assert_equal("\"seen.second\" 1 #{version}", line)
    dict["unseen"] = 1
    dict.delete("seen.first")
    assert_match(/\A"seen.first" nil \d+\z/, peer.hear)
    dict.clear
    assert_match(/\Anil nil \d+\z/, peer.hear)
    version = dict.store("seen.last", "end")
    assert_equal("\"seen.last\" \"end\" #{version}", peer.hear)
    peer.finish
  end

  def test_watching_one_key
    dict = dict()
    seen = Queue.new
    watcher = Thread.new { dict.watch(:a) { |*change| seen << change } }
    # It tells of nothing that came before it watched.
    Timeout.timeout(60) { sleep 0.01 while seen.empty? && dict[:a] = 0 }
    dict[:b] = 1
    version = dict.store(:a, 5)
    change = seen.pop until change&.last == version
    assert_equal(["a", 5, version], change)
    watcher.kill.join
    assert_raise(InvalidArgumentError) { dict.watch(:a, prefix: "b") {} }
  end

  def test_a_wait_lets_other_threads_run_and_can_be_broken_off
    dict = dict(timeout: nil)
    peer = Peer.new(HOLDER, unique)
    assert_equal("inside", peer.hear)
    waits = [-> { dict[:a] = 2 }, -> { dict.delete(:a) }, -> { dict.to_h }, -> { dict.increment(:n) }, -> { dict.update(:n) { 1 } },
             -> { dict.transaction {} }, -> { dict.transaction(read_only: true) {} }, -> { dict.clear }, -> { dict.watch { break } }]
    waits.each do |waiting|
      waiter = Thread.new(&waiting)
      waiter.report_on_exception = false
      Thread.pass until waiter.stop?
      waiter.raise(ArgumentError, "enough")
      assert_raise(ArgumentError) { waiter.join(60) }
      assert_raise(Timeout::Error) { Timeout.timeout(0.05) { waiting.call } }
    end
    peer.finish
    assert_equal({ "a" => 1, "b" => 1 }, dict.to_h)
  end

  def test_a_wait_ends_by_ctrl_c
    dict = dict()
    dict.transaction do
      peer = Peer.new(<<~RUBY, unique)
        dict = Mmf::Dict.open(name: ARGV[0], timeout: nil)
        begin
          puts "waiting"
          dict[:a] = 1
        rescue Interrupt
          puts "interrupted"
        end
      RUBY
      assert_equal("waiting", peer.hear)
      Process.kill(:INT, peer.pid)
      assert_equal("interrupted\n", peer.finish)
    end
  end

  def test_threads_and_forked_children_take_turns
    dict = dict()
    dict[:n] = 0
    count = lambda do
      50.times do
        dict.increment(:n)
        dict.update(:n) { |old| old + 1 }
        dict.transaction { |tx| tx[:n] += 1 }
      end
    end
    pid = fork do
      count.call
      exit!(true)
    end
    Array.new(2) { Thread.new(&count) }.each(&:join)
    assert_predicate(Process.wait2(pid).last, :success?)
    assert_equal(450, dict[:n])
  end

  def test_a_child_forked_within_a_transaction_does_not_end_it
    dict = dict()
    dict.transaction do |tx|
      tx[:a] = 1
      pid = fork do
        exit!(dict[:a].nil?)
      end
      assert_predicate(Process.wait2(pid).last, :success?)
      tx[:b] = 1
    end
    assert_equal({ "a" => 1, "b" => 1 }, dict.to_h)
    parent = $$
    begin
      dict.transaction do |tx|
        tx[:a] = 2
        fork && Process.wait
      end
    rescue InvalidArgumentError
      exit!($$ == parent ? 1 : 7)
    end
    assert_equal([7, 2], [$?.exitstatus, dict[:a]])
  end
end
