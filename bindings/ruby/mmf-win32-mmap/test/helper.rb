# frozen_string_literal: true

require "fileutils"
require "io/wait"
require "rbconfig"
require "test/unit"
require "tmpdir"
require "win32/mmap"

# Another process, which runs a piece of Ruby and answers line by line.
class Peer
  LIBRARY = File.expand_path("../lib", __dir__)
  # Only a test that fails waits for so long.
  DEADLINE = 60

  def initialize(code, *args)
    program = "require 'win32/mmap'; $stdout.sync = true; include Win32; #{code}"
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
class MMapTestCase < Test::Unit::TestCase
  include Win32

  def setup
    @directory = Dir.mktmpdir
    @maps = []
  end

  def teardown
    @maps.each(&:close)
    FileUtils.rm_rf(@directory)
  end

  def path(name = "test.map")
    File.join(@directory, name)
  end

  def unique
    "ruby-#{$$}-#{self.class.name}-#{@method_name}".delete(":")[0, 150]
  end

  # Patient, since these machines are busy: only what is to time out is given less.
  def map(**options)
    MMap.new({ timeout: 60_000 }.merge(options)).tap { |map| @maps << map }
  end
end
