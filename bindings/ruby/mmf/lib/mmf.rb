# frozen_string_literal: true

# Memory shared between processes, by name or by file.
module Mmf; end

require_relative "mmf/version"
require_relative "mmf/errors"
require_relative "mmf/opening"
require "mmf/mmf_ruby"
require_relative "mmf/mapping"
require_relative "mmf/region"
require_relative "mmf/dict"
