# frozen_string_literal: true

module Mmf
  VERSION = "0.1.0"
end
