# frozen_string_literal: true

require_relative "lib/win32/mmap/version"

Gem::Specification.new do |spec|
  spec.name = "mmf-win32-mmap"
  spec.version = Win32::MMap::VERSION
  spec.summary = "Win32::MMap on every system: shared memory with attributes"
  spec.description = "The interface of the gem win32-mmap 0.4, and the same bytes in the map, without its flaws."
  spec.authors = ["The mmf contributors"]
  spec.licenses = ["MIT", "Apache-2.0"]
  spec.required_ruby_version = ">= 3.1"
  # What `rake build` has put together; Cargo checks that no file of what it vendored is missing.
  spec.files = Dir.glob(["{lib,sig,ext,gvl,rust,vendor}/**/*", "Cargo.*", "*.md", "LICENSE-*"], File::FNM_DOTMATCH,
                        base: __dir__).select { |path| File.file?(File.join(__dir__, path)) }
  spec.extensions = ["ext/mmap_native/extconf.rb"]
  spec.require_paths = ["lib"]
end
