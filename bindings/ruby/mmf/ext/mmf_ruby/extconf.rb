# frozen_string_literal: true

# In a packed gem it lies beside, in the sources above.
require_relative(%w[../cargo_extension ../../../build/cargo_extension].find do |path|
  File.exist?(File.expand_path("#{path}.rb", __dir__))
end)

CargoExtension.create_makefile(directory: __dir__, crate: "mmf_ruby", feature: "mmf/mmf_ruby")
