# frozen_string_literal: true

require "fileutils"
require "rbconfig"

# Makes the Makefile that RubyGems and rake-compiler ask an `extconf.rb` for. Cargo does the work: there is no C.
module CargoExtension
  module_function

  # directory: where the extension's Cargo.toml is; crate: its name, and the library's;
  # feature: what `require` is given.
  def create_makefile(directory:, crate:, feature:)
    unless system(cargo, "--version", out: File::NULL, err: File::NULL)
      abort "This gem is written in Rust, and `#{cargo}` is not to be found: https://rustup.rs"
    end
    prefix = File.dirname(feature)
    File.write("Makefile", <<~MAKEFILE)
      RUBY = #{RbConfig.ruby}
      export RUBY
      target_prefix = #{prefix == "." ? "" : "/#{prefix}"}
      sitearchdir = #{RbConfig::CONFIG["sitearchdir"]}
      DESTDIR =
      RUBYARCHDIR = $(sitearchdir)$(target_prefix)

      all: #{library(feature)}

      #{library(feature)}: always
      \t#{command(directory, crate).map { |word| quote(word) }.join(" ")}
      \t"$(RUBY)" -rfileutils -e "FileUtils.cp ARGV[0], ARGV[1]" #{quote(built(directory, crate))} #{library(feature)}

      install: #{library(feature)}
      \t"$(RUBY)" -rfileutils -e "FileUtils.mkdir_p ARGV[0]; FileUtils.install ARGV[1], ARGV[0], mode: 0755" \\
      \t\t$(DESTDIR)$(RUBYARCHDIR) #{library(feature)}
      #{"\t\"$(RUBY)\" -rfileutils -e \"FileUtils.rm_rf ARGV\" cargo" if vendored(directory)}

      clean:
      \t"$(RUBY)" -rfileutils -e "FileUtils.rm_rf ARGV" #{library(feature)} cargo

      distclean: clean

      .PHONY: all always install clean distclean
    MAKEFILE
  end

  def cargo
    ENV.fetch("CARGO", "cargo")
  end

  def library(feature)
    "#{File.basename(feature)}.#{RbConfig::CONFIG["DLEXT"]}"
  end

  # Windows' Ruby is built by MinGW, so its extensions are too.
  def triple
    RbConfig::CONFIG["arch"].match?(/\Ax64-mingw/) ? "x86_64-pc-windows-gnu" : nil
  end

  # The sources that a packed gem brings along.
  def vendored(directory)
    path = File.expand_path("../../vendor", directory)
    path if File.directory?(path)
  end

  # From a clone, all gems share one; else it is built and removed here.
  def target(directory)
    vendored(directory) ? "cargo" : File.expand_path("../../../target", directory)
  end

  def command(directory, crate)
    command = [cargo, "build", "--release", "--package", crate, "--manifest-path", File.join(directory, "Cargo.toml")]
    command.push("--target-dir", target(directory))
    command.push("--target", triple) if triple
    path = vendored(directory)
    return command unless path

    # What the gem brings along is all that is used, whatever the user's own configuration says.
    command.push("--offline", "--locked")
    command.push("--config", "source.crates-io.replace-with='vendored'")
    command.push("--config", "source.vendored.directory='#{path}'")
  end

  def built(directory, crate)
    name =
      case RbConfig::CONFIG["host_os"]
      when /mingw|mswin/ then "#{crate}.dll"
      when /darwin/ then "lib#{crate}.dylib"
      else "lib#{crate}.so"
      end
    File.join(*[target(directory), triple, "release", name].compact)
  end

  def quote(word)
    %("#{word}")
  end
end
