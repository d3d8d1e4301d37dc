# frozen_string_literal: true

require_relative "helper"
require "timeout"

class TestRegion < MmfTestCase
  include Mmf

  # Tells when it has the lock, and keeps it until it is told to go on.
  HOLDER = <<~RUBY
    Mmf::Region.open(name: ARGV[0]).write do |guard|
      guard.pwrite("half", 0) if ARGV[1] == "half"
      puts "inside"
      $stdin.gets
    end
  RUBY

  def region(**options)
    Region.create(name: unique, capacity: 1000, timeout: 60.0, **options)
  end

  def test_contents
    region = region()
    assert_equal(["", 0], [region.read, region.size])
    assert_equal(5, region.write("hello"))
    assert_equal(["hello", Encoding::BINARY], [region.read, region.read.encoding])
    region.write("hi")
    assert_equal("hi", region.read)
    assert_equal("hi!", region.update { |old| "#{old}!" })
    Region.open(name: unique) { |other| assert_equal("hi!", other.read) }
    Region.open(name: unique, access: :read_only) do |other|
      assert_equal("hi!", other.read)
      assert_raise(ReadOnlyError) { other.write("x") }
    end
    assert_raise(InvalidArgumentError) { region.write("x" * 1001) }
    assert_equal("hi!", region.read)
  end

  def test_guards
    region = region()
    kept = nil
    value = region.write do |guard|
      kept = guard
      guard.write("0123456789")
      guard.pwrite("ab", 8)
      guard.truncate(9)
      [guard.size, guard.pread(100, 7), guard.read]
    end
    assert_equal([9, "7a", "01234567a"], value)
    assert_raise(ClosedError) { kept.read }
    region.read do |guard|
      assert_equal("012", guard.pread(3, 0))
      assert_raise(ReadOnlyError) { guard.write("x") }
      assert_raise(DeadlockError) { region.write("x") }
      Thread.new { assert_raise(InvalidArgumentError) { guard.read } }.join
    end
    # An exception gives the lock back.
    assert_raise(RuntimeError) { region.write { raise "within" } }
    region.write { |guard| break guard }
    assert_false(region.poisoned?)
    assert_equal("01234567a", region.read)
  end

  def test_timeouts
    region = region()
    peer = Peer.new(HOLDER, unique, "whole")
    assert_equal("inside", peer.hear)
    error = assert_raise(TimeoutError) { region.write("x", timeout: 0.03) }
    assert_match(/process #{peer.pid}/, error.message)
    region.timeout = 0
    assert_raise(TimeoutError) { region.read }
    assert_raise(TimeoutError) { region.read { flunk } }
    peer.finish
    region.timeout = nil
    region.write("x")
  end

  def test_a_killed_writer_leaves_a_report
    region = region()
    region.write("whole")
    peer = Peer.new(HOLDER, unique, "half")
    assert_equal("inside", peer.hear)
    peer.kill
    assert_raise(PoisonedError) { region.read }
    assert_raise(PoisonedError) { region.write("x") }
    assert_true(region.poisoned?)
    assert_match(/poisoned/, region.inspect)
    # Whoever fails to mend it leaves the report.
    assert_raise(RuntimeError) { region.write(repair: true) { raise "cannot" } }
    assert_true(region.poisoned?)
    region.write(repair: true) do |guard|
      assert_equal("halfe", guard.read)
      guard.write("mended")
    end
    assert_equal([false, "mended"], [region.poisoned?, region.read])
  end

  def test_a_killed_holder_that_changed_nothing_is_as_if_it_never_was
    region = region()
    region.write("whole")
    peer = Peer.new(HOLDER, unique, "whole")
    assert_equal("inside", peer.hear)
    peer.kill
    assert_equal("whole", region.read)
  end

  def test_waiting_for_changes
    region = region()
    version = region.version
    assert_nil(region.wait_changed(version, timeout: 0.01))
    peer = Peer.new("Mmf::Region.open(name: ARGV[0]).watch { |text, _| puts text; break if text == 'end' }", unique)
    assert_equal("", peer.hear)
    %w[one two end].each do |text|
      region.write(text)
      assert_equal(text, peer.hear)
    end
    peer.finish
    assert_operator(region.wait_changed(version), :>, version)
    assert_equal(["end"], region.watch(timeout: 0.01).map { |text, _| text })
  end

  def test_a_wait_lets_other_threads_run_and_can_be_broken_off
    region = region(timeout: nil)
    peer = Peer.new(HOLDER, unique, "whole")
    assert_equal("inside", peer.hear)
    [-> { region.read }, -> { region.write("x") }, -> { region.wait_changed }].each do |waiting|
      waiter = Thread.new(&waiting)
      waiter.report_on_exception = false
      Thread.pass until waiter.stop?
      waiter.raise(ArgumentError, "enough")
      assert_raise(ArgumentError) { waiter.join(60) }
      assert_raise(Timeout::Error) { Timeout.timeout(0.05) { waiting.call } }
    end
    peer.finish
    # What was broken off took no lock along.
    region.write("x", timeout: 60)
  end

  def test_a_wait_ends_by_ctrl_c
    region = region()
    peer = nil
    region.write do
      peer = Peer.new(<<~RUBY, unique)
        region = Mmf::Region.open(name: ARGV[0], timeout: nil)
        trap(:USR1) { puts "trapped" }
        begin
          puts "waiting"
          region.read
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

  def test_threads_and_forked_children_take_turns
    region = region()
    region.write("0")
    count = -> { 100.times { region.update { |old| (old.to_i + 1).to_s } } }
    pid = fork do
      count.call
      exit!(true)
    end
    threads = Array.new(2) { Thread.new(&count) }
    threads.each(&:join)
    assert_predicate(Process.wait2(pid).last, :success?)
    assert_equal("300", region.read)
  end

  def test_status_and_the_end
    region = region()
    region.write("hello")
    status = region.status
    assert_equal([5, region.capacity, false], [status.size, status.capacity, status.poisoned])
    assert_operator(status.capacity, :>=, 1000)
    assert_equal([[$$, false, 0]], status.participants.map { |one| [one.pid, one.writing, one.reading] })
    assert_in_delta(Time.now, status.created, 600)
    2.times { assert_nil(region.close) }
    assert_raise(ClosedError) { region.read }
    assert_raise(NotFoundError) { Region.open(name: unique) }
  end

  def test_a_larger_capacity_than_the_most_is_refused
    region = region()
    region.write("hello")
    most = region.capacity
    error = assert_raise(MismatchError) { Region.open(name: unique, max_capacity: most - 1) }
    assert_match(/#{unique}.*#{most} bytes.*raise `max_capacity`/, error.message)
    assert_raise(MismatchError) { Region.open_or_create(name: unique, capacity: 1, max_capacity: most - 1) }
    error = assert_raise(InvalidArgumentError) { Region.create(file: path, capacity: 10, max_capacity: 9) }
    assert_match(/raise `max_capacity`/, error.message)
    Region.open(name: unique, max_capacity: most) do |other|
      assert_equal("hello", other.read)
      pid = fork { exit!(other.read == "hello") }
      assert_predicate(Process.wait2(pid).last, :success?)
    end
  end

  def test_what_is_no_region_is_told
    Mapping.create(name: unique, size: 4096) { assert_raise(NotASegmentError) { Region.open(name: unique) } }
    assert_raise(InvalidArgumentError) { Region.create(name: unique) }
    assert_raise(InvalidArgumentError) { Region.open(capacity: 5) }
    assert_raise(InvalidArgumentError) { region.write }
  end
end
