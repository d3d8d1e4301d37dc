# frozen_string_literal: true

module Mmf
  # Included in every exception of this library: `rescue Mmf::Error` catches all of them.
  module Error; end

  # No object of that name or path exists, or no process holds it any more.
  class NotFoundError < Errno::ENOENT
    include Error
  end

  # An object of that name or path exists already.
  class AlreadyExistsError < Errno::EEXIST
    include Error
  end

  # The system refused: permissions are missing. Or the object has more than one name (hard links),
  # of which its owner has to remove all but one.
  class PermissionError < Errno::EACCES
    include Error
  end

  # The object belongs to another user, and `allow_other_owners: true` was not asked for. Of a file
  # this counts in `open_or_create` alone, in directories such as /tmp.
  class ForeignOwnerError < PermissionError; end

  # There is no memory or disk space for the bytes.
  class NoSpaceError < Errno::ENOSPC
    include Error
  end

  # Another process is creating, removing or using the object, and did not finish in time.
  class BusyError < Errno::EBUSY
    include Error
  end

  # Anything else that the system reported; `errno` is its code.
  class SystemError < SystemCallError
    include Error
  end

  # The arguments contradict each other or make no sense.
  class InvalidArgumentError < ArgumentError
    include Error
  end

  # The name cannot be held by this system. It is never shortened.
  class InvalidNameError < InvalidArgumentError; end

  # The object exists, but is not what the options demand.
  class MismatchError < InvalidArgumentError; end

  # The offset is no multiple of what an atomic operation needs.
  class MisalignedError < InvalidArgumentError; end

  # The range passes the end.
  class OutOfBoundsError < RangeError
    include Error
  end

  # This system, or this kind of object, does not support the operation.
  class UnsupportedError < StandardError
    include Error
  end

  # The object is open for reading only.
  class ReadOnlyError < IOError
    include Error
  end

  # The object was closed, or its lock was released.
  class ClosedError < IOError
    include Error
  end

  # A page is gone: its file was truncated, the memory for it is exhausted, or its disk fails.
  class FaultError < IOError
    include Error
  end

  # The object is no segment of mmf's, or one that this release cannot use.
  class NotASegmentError < StandardError
    include Error
  end

  # A segment has contents that no mmf process writes.
  class DamagedError < NotASegmentError; end

  # The timeout passed.
  class TimeoutError < StandardError
    include Error
  end

  # Other writers interfered with each attempt until the timeout.
  class ContendedError < TimeoutError; end

  # This thread has the lock already.
  class DeadlockError < ThreadError
    include Error
  end

  # A writer died with a change half made.
  class PoisonedError < StandardError
    include Error
  end

  # There is no room left: for one more participant, or in a dict.
  class FullError < StandardError
    include Error
  end

  # There is no such key, and no default for it.
  class KeyError < ::KeyError
    include Error
  end
end
