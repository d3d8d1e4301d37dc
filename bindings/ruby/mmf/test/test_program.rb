# frozen_string_literal: true

require_relative "helper"
require "json"
require "open3"

# A Ruby process and the program `mmf` share a dict, and killing either loses nothing.
class TestProgram < MmfTestCase
  include Mmf

  # Built from the same sources, once.
  def self.program
    @program ||= begin
      root = File.expand_path("../../../..", __dir__)
      command = [ENV.fetch("CARGO", "cargo"), "build", "--quiet", "--package", "mmf-cli", "--message-format", "json"]
      lines, status = Open3.capture2(*command, chdir: root)
      raise "the program does not build" unless status.success?

      lines.lines.filter_map { |line| JSON.parse(line)["executable"] }.last
    end
  end

  def mmf(*arguments)
    output, status = Open3.capture2(self.class.program, *arguments)
    assert_predicate(status, :success?, arguments.inspect)
    output.chomp
  end

  def places
    yield({ name: unique }, unique)
    yield({ file: path }, path)
  end

  def test_each_sees_what_the_other_sets
    places do |options, place|
      Dict.create(capacity: 4 << 20, **options) do |dict|
        dict.greeting = "hello"
        dict[:list] = [1, 2.5, nil, { "a" => "ü" }]
        assert_equal("hello", mmf("get", place, "greeting"))
        assert_equal([1, 2.5, nil, { "a" => "ü" }], JSON.parse(mmf("get", place, "list", "--json")))
        mmf("set", place, "answer:=42", "text=50 mm", 'map:={"x": [true]}')
        assert_equal([42, "50 mm", { "x" => [true] }], [dict.answer, dict.text, dict[:map]])
        mmf("incr", place, "answer")
        assert_equal([43, 44], [dict.answer, dict.increment(:answer)])
        assert_equal("44", mmf("get", place, "answer"))
        mmf("del", place, "text")
        assert_raise(NoMethodError) { dict.text }
        assert_equal(%w[answer greeting list map], mmf("keys", place).split)
      end
    end
  end

  # It says which value it has set, and is killed somewhere in the next.
  WRITER = <<~RUBY
    dict = Mmf::Dict.open(ARGV[0].to_sym => ARGV[1])
    n = dict.n
    loop { dict.transaction { |tx| tx[:n] = tx[:text] = n += 1 }; dict.pad = "x" * (n % 5000); puts n }
  RUBY

  def test_a_killed_ruby_loses_nothing_that_it_had_set
    places do |options, place|
      Dict.create(capacity: 4 << 20, **options) do |dict|
        dict.n = 0
        10.times do |round|
          peer = Peer.new(WRITER, options.keys.first.to_s, place)
          said = peer.hear.to_i
          (round * 20).times { said = peer.hear.to_i }
          Process.kill(:KILL, peer.pid)
          while (line = peer.hear) do said = line.to_i end
          peer.kill
          # What it said is there, or what came after it, whole; and who comes next waits for nobody.
          n = mmf("get", place, "n").to_i
          assert_include(said..said + 1, n)
          assert_equal([n, n], [dict.n, mmf("get", place, "text").to_i])
          mmf("set", place, "mine:=#{round}")
          assert_equal(round, dict.mine)
        end
        assert_match(/whole/, mmf("check", place))
      end
    end
  end

  def test_a_killed_program_loses_nothing_that_it_had_set
    places do |options, place|
      Dict.create(capacity: 4 << 20, **options) do |dict|
        dict[:a] = dict[:b] = 0
        killed = 0
        40.times do |round|
          before = dict[:a]
          pid = Process.spawn(self.class.program, "set", place, "a:=#{round + 1}", "b:=#{round + 1}")
          sleep(round * 0.0005)
          Process.kill(:KILL, pid)
          status = Process.wait2(pid).last
          killed += 1 if status.signaled?
          now = dict.to_h
          assert_equal(now["a"], now["b"])
          assert_include(status.success? ? [round + 1] : [before, round + 1], now["a"])
          assert_equal(round, dict.mine = round)
        end
        assert_operator(killed, :>, 0)
        assert_equal("39", mmf("get", place, "mine"))
      end
    end
  end
end
