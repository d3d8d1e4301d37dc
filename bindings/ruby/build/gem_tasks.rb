# frozen_string_literal: true

require "fileutils"
require "rake"
require "rake/clean"
require "rake/extensiontask"
require "rake/testtask"
require "rubygems"

# The tasks that all gems here have: compile, test, build, install.
module GemTasks
  extend Rake::DSL

  RUBY = File.expand_path("..", __dir__)
  ROOT = File.expand_path("../..", RUBY)

  module_function

  # gem: its name and directory; extension: the crate of its library; lib_dir: where that goes;
  # crates: those of the workspace here that it is made of.
  def define(gem:, extension:, lib_dir:, crates:)
    directory = File.join(RUBY, gem)
    spec = Gem::Specification.load(File.join(directory, "#{gem}.gemspec"))
    Rake::ExtensionTask.new(extension) do |task|
      task.ext_dir = File.join("ext", extension)
      task.lib_dir = lib_dir
      task.source_pattern = "**/*.{rs,toml}"
    end
    # Cargo knows what has changed, in the crates below too; the Makefile is made anew where its maker is newer.
    Rake::Task.tasks.each do |task|
      outdate(task) if task.name.end_with?("#{extension}.#{RbConfig::CONFIG["DLEXT"]}")
      file(task.name => File.join(__dir__, "cargo_extension.rb")) if task.name.end_with?("/Makefile")
    end

    Rake::TestTask.new(:test) do |task|
      task.libs << "test"
      task.test_files = FileList["test/**/test_*.rb"]
      task.warning = true
    end
    task test: :compile

    desc "Measure it against what Ruby programs had before"
    task(bench: :compile) { FileList["bench/*.rb"].each { |file| ruby "-Ilib", file } }

    packed = File.join("pkg", "#{spec.full_name}.gem")
    desc "Pack #{packed}, which brings all sources that it is built from"
    task(:build) { pack(spec, crates) }
    desc "Build and install the packed gem"
    task(install: :build) { sh "gem", "install", "--local", "--no-document", packed }
    task default: :test
    CLOBBER.include("pkg", "tmp", "#{lib_dir}/#{extension}.#{RbConfig::CONFIG["DLEXT"]}")
  end

  def outdate(task)
    task.define_singleton_method(:needed?) { true } if task.name.start_with?("tmp/")
  end

  # A directory that is complete in itself, and the gem made of it.
  def pack(spec, crates)
    stage = File.expand_path("pkg/#{spec.full_name}")
    FileUtils.rm_rf(stage)
    FileUtils.mkdir_p(File.join(stage, "rust"))
    # As git has them: nothing that was built.
    files = IO.popen(%w[git ls-files -z --cached --others --exclude-standard], &:read).split("\0")
    files.reject! { |file| file.match?(%r{(\A|/)(tests?|bench)/}) || !File.file?(file) }
    files.each { |file| copy(file, File.join(stage, file)) }
    FileUtils.cp(File.join(__dir__, "cargo_extension.rb"), File.join(stage, "ext"))
    FileUtils.cp(Dir[File.join(ROOT, "LICENSE-*")], stage)
    stage_crates(stage, File.basename(Dir.pwd), crates)
    Dir.chdir(stage) { sh "gem", "build", "--silent", "--output", "../#{spec.full_name}.gem", "#{spec.name}.gemspec" }
  end

  def copy(from, to)
    FileUtils.mkdir_p(File.dirname(to))
    FileUtils.cp(from, to)
  end

  # The library's crate, those beside the gem, and what they depend on.
  def stage_crates(stage, gem, crates)
    sh "cargo", "package", "--quiet", "--package", "mmf", "--no-verify", "--allow-dirty", "--exclude-lockfile",
       "--manifest-path", File.join(ROOT, "Cargo.toml"), "--target-dir", File.join(RUBY, "target")
    crate = Dir[File.join(RUBY, "target/package/mmf-*.crate")].max_by { |path| File.mtime(path) }
    sh "tar", "-xf", crate, "-C", File.join(stage, "rust")
    FileUtils.mv(Dir[File.join(stage, "rust/mmf-*")].first, File.join(stage, "rust/mmf"))
    members = crates.map { |path| path.delete_prefix("#{gem}/") }
    crates.zip(members).each do |path, member|
      FileUtils.cp_r(File.join(RUBY, path), File.join(stage, member)) unless path.start_with?("#{gem}/")
    end
    # What only tests need stays behind.
    members.each { |member| edit(File.join(stage, member, "Cargo.toml")) { |text| text.sub(/^\[dev-dependencies\].*?(?=^\[|\z)/m, "") } }
    File.write(File.join(stage, "Cargo.toml"), manifest(gem, members))
    FileUtils.cp(File.join(RUBY, "Cargo.lock"), stage)
    Dir.chdir(stage) do
      # Takes out of the lock what only the other gems need, then fetches what is left.
      sh "cargo", "metadata", "--quiet", "--format-version", "1", out: File::NULL
      sh "cargo", "vendor", "--quiet", "--locked", "vendor", out: File::NULL
    end
  end

  def edit(path)
    File.write(path, yield(File.read(path)))
  end

  # The workspace's, with the gem's members and its own copy of the library.
  def manifest(gem, members)
    text = File.read(File.join(RUBY, "Cargo.toml"))
    text.sub!(/^members = .*$/, "members = #{members.inspect}") or raise "no members"
    text.sub!(%r{^mmf = .*$}, 'mmf = { path = "rust/mmf" }') or raise "no mmf"
    text.gsub!(%r{path = "#{Regexp.escape(gem)}/}, 'path = "')
    text
  end
end
