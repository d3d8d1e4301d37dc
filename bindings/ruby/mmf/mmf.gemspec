# frozen_string_literal: true

require_relative "lib/mmf/version"

Gem::Specification.new do |spec|
  spec.name = "mmf"
  spec.version = Mmf::VERSION
  spec.summary = "Memory shared between processes"
  spec.description = "Mappings, locked regions and dicts, by name or by file, guarded against faults, on Windows, Linux and macOS."
  spec.authors = ["The mmf contributors"]
  spec.licenses = ["MIT", "Apache-2.0"]
  spec.required_ruby_version = ">= 3.1"
  # What `rake build` has put together; Cargo checks that no file of what it vendored is missing.
  spec.files = Dir.glob(["{lib,sig,ext,gvl,rust,vendor}/**/*", "Cargo.*", "*.md", "LICENSE-*"], File::FNM_DOTMATCH,
                        base: __dir__).select { |path| File.file?(File.join(__dir__, path)) }
  spec.extensions = ["ext/mmf_ruby/extconf.rb"]
  spec.require_paths = ["lib"]
end
