# frozen_string_literal: true

require_relative "helper"
require "rbs"

# The signatures name every public method, and none that is not there.
class TestSignatures < MmfTestCase
  def test_they_are_complete
    loader = RBS::EnvironmentLoader.new
    loader.add(path: Pathname(File.expand_path("../sig", __dir__)))
    builder = RBS::DefinitionBuilder.new(env: RBS::Environment.from_loader(loader).resolve_type_names)
    [Mmf::Mapping, Mmf::Region, Mmf::Region::Guard, Mmf::Dict, Mmf::Dict::Transaction].each do |type|
      *outer, last = type.name.split("::")
      namespace = RBS::Namespace.parse("::#{outer.join("::")}")
      name = RBS::TypeName.new(name: last.to_sym, namespace: namespace)
      definition = builder.build_instance(name)
      told = definition.methods.select { |_, method| method.implemented_in == name && method.public? }.keys
      assert_equal((type.public_instance_methods(false) - [:inspect]).sort, told.sort, type.name)
    end
    classes = Mmf.constants.map { |constant| Mmf.const_get(constant) }.grep(Class)
    told = RBS::Environment.from_loader(loader).class_decls.keys.map(&:to_s)
    assert_equal([], classes.map { |type| "::#{type.name}" } - told)
  end
end
