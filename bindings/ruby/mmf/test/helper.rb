# frozen_string_literal: true

require "fileutils"
require "io/wait"
require "mmf"
require "rbconfig"
require "test/unit"
require "tmpdir"

# Another process, which runs a piece of Ruby and answers line by line.
class Peer
  LIBRARY = File.expand_path("../lib", __dir__)
  # Only a test that fails waits for so long.
  DEADLINE = 60

  def initialize(code, *args)
    program = "require 'mmf'; $stdout.sync = true; #{code}"
    @pipe = IO.popen([RbConfig.ruby, "-w", "-I", LIBRARY, "-e", program, *args], "r+")
  end

  def pid
    @pipe.pid
  end

  def hear
    @pipe.wait_readable(DEADLINE) or raise "the peer says nothing"
    @pipe.gets&.chomp
  end

  def say(line)
    @pipe.puts(line)
  end

  # Whether it has said something, or does soon.
  def speaks?
    @pipe.wait_readable(0.01) ? true : false
  end

  def kill
    Process.kill(:KILL, pid)
    @pipe.close
  end

  # The rest of what it says, once it has ended.
  def finish
    @pipe.close_write
    rest = @pipe.read
    @pipe.close
    raise "the peer failed: #{$?}" unless $?.success?

    rest
  end
end

# What the tests share.
class MmfTestCase < Test::Unit::TestCase
  def setup
    @directory = Dir.mktmpdir
  end

  def teardown
    FileUtils.rm_rf(@directory)
  end

  def path(name = "test.map")
    File.join(@directory, name)
  end

  def unique
    "ruby-#{$$}-#{self.class.name}-#{@method_name}".delete(":")[0, 150]
  end
end
