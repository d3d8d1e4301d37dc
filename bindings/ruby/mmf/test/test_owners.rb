# frozen_string_literal: true

require_relative "helper"

# Objects of another user: opened only where `allow_other_owners:` asks for it.
class TestOwners < MmfTestCase
  include Mmf

  # The size of each kind of object, as its `create` is told it.
  KINDS = { Mapping => { size: 4096 }, Region => { capacity: 4096 }, Dict => { capacity: 1 << 20 } }.freeze

  # Makes an object of its own, where root starts it as a user that owns nothing, and keeps it until
  # it is told to go on.
  OWNER = <<~RUBY
    Process::UID.change_privilege(65533) if Process.euid.zero?
    kind, name, option, size = ARGV
    Mmf.const_get(kind).create(global: name, permissions: :everyone, option.to_sym => size.to_i) do
      puts "made"
      $stdin.gets
    end
  RUBY

  def test_objects_of_other_users_are_opened_where_that_is_asked_for
    KINDS.each do |kind, size|
      peer = Peer.new(OWNER, kind.name.delete_prefix("Mmf::"), unique, *size.first.map(&:to_s))
      assert_equal("made", peer.hear)
      # Only root can have a peer of another user.
      refusals = Process.euid.zero? ? [{}, { allow_other_owners: false }, { allow_other_owners: nil }] : []
      refusals.each do |options|
        error = assert_raise(ForeignOwnerError) { kind.open(global: unique, **options) }
        assert_match(/belongs to user 65533.*allow other owners/, error.message)
        assert_raise(ForeignOwnerError) { kind.open_or_create(global: unique, **size, **options) }
      end
      { open: {}, open_or_create: size }.each do |opener, options|
        object = kind.public_send(opener, global: unique, allow_other_owners: true, **options)
        # A handle that a forked child opens keeps to the options.
        pid = fork { exit!(object.size.zero? == (kind != Mapping)) }
        assert_predicate(Process.wait2(pid).last, :success?)
        object.close
      end
      peer.finish
      assert_raise(NotFoundError) { kind.open(global: unique) }
    end
  end

  def test_who_asks_for_other_owners_creates_an_object_as_well
    KINDS.each do |kind, size|
      kind.create(global: unique, allow_other_owners: true, **size) do |object|
        assert_false(object.closed?)
        kind.open(global: unique) { |other| assert_equal(object.size, other.size) }
      end
    end
  end
end
