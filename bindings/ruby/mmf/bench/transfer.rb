# frozen_string_literal: true

require_relative "../../build/bench"
require "mmf"

# 64 MiB from a String in one process to another, until that has looked at all of it and said so.
module TransferBench
  SIZE = 64 << 20
  PIECE = 1 << 20
  # Linux' F_SETPIPE_SZ, for which Fcntl has no name.
  SET_PIPE_SIZE = 1031

  # The receiving side: an order is a letter.
  class Receiver
    def initialize(map, reader, orders)
      @map = map
      @reader = reader
      @orders = orders
      @buffer = String.new(capacity: PIECE)
    end

    # The last byte of all.
    def receive(order)
      case order
      when "m" then @map.pread(SIZE, 0).getbyte(-1)
      when "p" then @reader.read(SIZE).getbyte(-1)
      when "M" then pieces { |nth| @map.pread(PIECE, nth * PIECE, @buffer) if nth.zero? || @orders.read(1) }
      when "P" then pieces { @reader.read(PIECE, @buffer) }
      end
    end

    def pieces
      (SIZE / PIECE).times { |nth| yield nth }
      @buffer.getbyte(-1)
    end
  end

  module_function

  def run
    bytes = Random.new(1).bytes(SIZE)
    pieces = Array.new(SIZE / PIECE) { |nth| bytes.byteslice(nth * PIECE, PIECE) }
    orders, order = IO.pipe
    @answer, answers = IO.pipe
    reader, writer = IO.pipe
    Mmf::Mapping.create(name: "bench-#{$$}", size: SIZE) do |map|
      Bench.peer do
        receiver = Receiver.new(map, reader, orders)
        while (what = orders.read(1))
          answers.putc(receiver.receive(what))
        end
      end
      whole = transfer(bytes) { map.pwrite(bytes, 0).then { order.putc("m") } }
      in_pieces = transfer(bytes) { pieces.each_with_index { |piece, nth| map.pwrite(piece, nth * PIECE).then { order.putc("M") } } }
      pipe = transfer(bytes) { order.putc("p").then { writer.write(bytes) } }
      pipe_in_pieces = transfer(bytes) { order.putc("P").then { pieces.each { |piece| writer.write(piece) } } }
      Bench.table("64 MiB to another process", "`IO.pipe`")
      row("in pieces of 1 MiB, into one buffer", 2, in_pieces, pipe_in_pieces)
      row("into one String of 64 MiB", 2, whole, pipe)
      writer.fcntl(SET_PIPE_SIZE, 1 << 20)
      row("in pieces, beside a pipe that holds 1 MiB", nil, in_pieces, pipe_in_pieces)
      row("into one String, beside a pipe that holds 1 MiB", nil, whole, pipe)
    end
  end

  def row(*row)
    Bench.row(*row, clock: Process::CLOCK_MONOTONIC)
  end

  def transfer(bytes)
    lambda do |times|
      times.times do
        yield
        raise "it came otherwise" if @answer.getbyte != bytes.getbyte(-1)
      end
    end
  end
end

TransferBench.run
