# frozen_string_literal: true

require_relative "helper"
require "rbs"

# The signatures name every public method, constant and class, and none that is not there.
class TestSignatures < MMapTestCase
  def test_they_are_complete
    loader = RBS::EnvironmentLoader.new
    loader.add(path: Pathname(File.expand_path("../sig", __dir__)))
    environment = RBS::Environment.from_loader(loader).resolve_type_names
    builder = RBS::DefinitionBuilder.new(env: environment)
    name = RBS::TypeName.new(name: :MMap, namespace: RBS::Namespace.parse("::Win32"))
    own = ->(definition) { definition.methods.select { |_, method| method.implemented_in == name && method.public? }.keys.sort }
    assert_equal((MMap.public_instance_methods(false) - [:inspect]).sort, own.call(builder.build_instance(name)))
    # The library's `new` is Ruby's, with arguments of its own.
    assert_equal((MMap.singleton_methods(false) + [:new]).sort, own.call(builder.build_singleton(name)))
    classes, values = MMap.constants.partition { |constant| MMap.const_get(constant).is_a?(Class) }
    values.reject! { |constant| MMap.const_get(constant).is_a?(Module) }
    inside = ->(type) { type.to_s[/\A::Win32::MMap::(\w+)\z/, 1]&.to_sym }
    assert_equal(values.sort, environment.constant_decls.keys.filter_map(&inside).sort)
    assert_equal(classes.sort, environment.class_decls.keys.filter_map(&inside).sort)
  end
end
