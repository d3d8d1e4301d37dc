# frozen_string_literal: true

require_relative "../../build/bench"
require "drb/drb"
require "drb/unix"
require "mmf"
require "pstore"
require "tmpdir"
require "yaml/store"

# A dict beside what Ruby brings along for values that processes share.
module DictBench
  ENTRIES = [1, 20].freeze

  module_function

  def run
    Dir.mktmpdir do |directory|
      @directory = directory
      Mmf::Dict.create(file: File.join(directory, "dict"), capacity: 16 << 20) do |file|
        stores.each { |name, store| beside_store(name, store, file) }
      end
      Mmf::Dict.create(name: "bench-#{$$}", capacity: 16 << 20) { |memory| beside_drb(memory) }
    end
  end

  def stores
    { "PStore" => PStore.new(File.join(@directory, "pstore")), "YAML::Store" => YAML::Store.new(File.join(@directory, "yaml")) }
  end

  def beside_store(name, store, dict)
    Bench.table("A dict in a file, beside `#{name}`", name)
    ENTRIES.each do |count|
      fill(dict, count)
      store.transaction { fill(store, count) }
      names = { dict: dict, store: store }
      Bench.row("`dict.foo`, #{entries(count)}", 50, Bench.loop_of("dict.foo", **names),
                Bench.loop_of("store.transaction(true) { store[:foo] }", **names))
      Bench.row("`dict.foo = 'hello'`, another value each time, #{entries(count)}", 50,
                Bench.loop_of("dict.foo = i.even? ? 'hello' : 'world'", **names),
                Bench.loop_of("store.transaction { store[:foo] = i.even? ? 'hello' : 'world' }", **names))
      Bench.row("`dict.foo = 'hello'`, the same value, #{entries(count)}", 50, Bench.loop_of("dict.foo = 'hello'", **names),
                Bench.loop_of("store.transaction { store[:foo] = 'hello' }", **names))
    end
  end

  def beside_drb(dict)
    uri = "drbunix:#{File.join(@directory, "socket")}"
    Bench.peer do
      DRb.start_service(uri, {})
      DRb.thread.join
    end
    DRb.start_service
    hash = DRbObject.new_with_uri(uri)
    begin
      fill(hash, ENTRIES.last)
    rescue DRb::DRbConnError
      sleep 0.01
      retry
    end
    fill(dict, ENTRIES.last)
    names = { dict: dict, hash: hash }
    Bench.table("A dict in memory, beside a `Hash` by `DRb`", "DRb")
    Bench.row("`dict.foo`, #{entries(ENTRIES.last)}", 20, Bench.loop_of("dict.foo", **names), Bench.loop_of("hash[:foo]", **names),
              clock: Process::CLOCK_MONOTONIC)
    Bench.row("`dict.foo = 'hello'`, #{entries(ENTRIES.last)}", 20, Bench.loop_of("dict.foo = 'hello'", **names),
              Bench.loop_of("hash[:foo] = 'hello'", **names), clock: Process::CLOCK_MONOTONIC)
  end

  def fill(store, count)
    store[:foo] = "hello"
    (count - 1).times { |nth| store[:"key#{nth}"] = "value #{nth}" }
  end

  def entries(count)
    count == 1 ? "1 entry" : "#{count} entries"
  end
end

DictBench.run
