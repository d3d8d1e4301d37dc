# frozen_string_literal: true

require "rbconfig"

# Measures two ways of the same work in turns within one run, and prints the tables of docs/benchmarks.md.
module Bench
  PAIRS = ENV["PAIRS"]&.to_i || 21
  # A sample lasts so long at least: what is shorter is repeated.
  SAMPLE = 0.002

  module_function

  # The work of a row, in a loop that costs as little as Ruby can.
  def loop_of(code, **names)
    space = Object.new
    names.each { |name, value| space.instance_variable_set("@#{name}", value) }
    locals = names.keys.map { |name| "#{name} = @#{name}; " }.join
    space.instance_eval("#{locals}->(times) { i = 0; while i < times; #{code}; i += 1; end }", __FILE__, __LINE__)
  end

  # The medians of both, in seconds, and the median of the pairs' ratios.
  def pairs(ours, theirs, clock)
    counts = [ours, theirs].map { |work| enough(work, clock) }
    sides = [[ours, counts[0]], [theirs, counts[1]]]
    samples = Array.new(PAIRS) do |nth|
      order = nth.even? ? [0, 1] : [1, 0]
      times = order.to_h { |side| [side, time(*sides[side], clock)] }
      [times[0], times[1]]
    end
    [median(samples.map(&:first)), median(samples.map(&:last)), median(samples.map { |one, other| other / one })]
  end

  # One run is as long as a sample has to be.
  def enough(work, clock)
    work.call(1)
    times = 1
    # The quickest of some, since the machine may do something else for longer than a sample.
    times *= 2 while Array.new(3) { time(work, times, clock) }.min * times < SAMPLE
    times
  end

  # Seconds for each time.
  def time(work, times, clock)
    start = Process.clock_gettime(clock)
    work.call(times)
    (Process.clock_gettime(clock) - start) / times
  end

  def median(values)
    values.sort[values.size / 2]
  end

  def table(title, other)
    puts "", "### #{title}", "", "| | here | #{other} | here is | target | |", "| --- | --- | --- | --- | --- | --- |"
  end

  # What takes place in this process alone, and waits for nothing, is measured by the time that the system gives it, so that
  # other programs do not count.
  def row(what, target, ours, theirs, clock: Process::CLOCK_PROCESS_CPUTIME_ID)
    mine, other, ratio = pairs(ours, theirs, clock)
    verdict = target && (ratio >= target ? "met" : "**short**")
    told = target && "at least #{target} x"
    puts "| #{what} | #{human(mine)} | #{human(other)} | #{format("%.1f", ratio)} x as fast | #{told} | #{verdict} |"
    $stdout.flush
  end

  def human(seconds)
    return format("%.0f ns", seconds * 1e9) if seconds < 1e-6
    return format("%.1f µs", seconds * 1e6) if seconds < 1e-3

    format("%.1f ms", seconds * 1e3)
  end

  # Another process for the time of a block.
  def peer
    pid = fork do
      yield
    ensure
      exit!(true)
    end
    at_exit { Process.kill(:KILL, pid) rescue nil } # rubocop:disable Style/RescueModifier
    pid
  end
end
