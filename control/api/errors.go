package api

import (
	"errors"
	"fmt"
)

// Code names why something was refused. Codes are part of the API: a client branches on them, so they never change
// their meaning. Code is an error itself, so that a [Backend] wraps one with what it tried:
//
//	fmt.Errorf("add real server %v to %v: %w", rs, vs, api.ServerExists)
//
// and both sides test for it with errors.Is(err, api.ServerExists).
type Code string

// The reasons for refusing an operation. The comment gives the kernel's errno where IPVS has one for the situation.
const (
	ServiceExists    Code = "service-exists"     // a virtual service with this protocol, address and port or mark is there already (EEXIST)
	ServiceNotFound  Code = "service-not-found"  // no such virtual service (ESRCH)
	ServerExists     Code = "server-exists"      // the virtual service has this real server already (EEXIST)
	ServerNotFound   Code = "server-not-found"   // the virtual service has no such real server (ENOENT)
	NoScheduler      Code = "no-scheduler"       // scheduler or persistence engine unknown (ENOENT)
	OutOfRange       Code = "out-of-range"       // a number the kernel refuses: weight, thresholds, timeout (ERANGE)
	Invalid          Code = "invalid"            // understood, but not possible: address not unicast, wrong family (EINVAL)
	Unsupported      Code = "unsupported"        // a sound request for something this version does not do (EOPNOTSUPP)
	DaemonExists     Code = "daemon-exists"      // a sync daemon of this role runs already (EEXIST)
	DaemonNotRunning Code = "daemon-not-running" // no sync daemon of this role runs (ESRCH)
	NoDevice         Code = "no-device"          // no such network interface (ENODEV)
	NoMemory         Code = "no-memory"          // a bounded table is full (ENOMEM)
	MarkExists       Code = "mark-exists"        // a mark rule with these conditions is there already
	MarkNotFound     Code = "mark-not-found"     // no such mark rule
	SettingNotFound  Code = "setting-not-found"  // no such setting (ENOENT)
	CheckExists      Code = "check-exists"       // the service or server has a health check with this id already
	CheckNotFound    Code = "check-not-found"    // no such health check
	Skipped          Code = "skipped"            // not tried or taken back, because another operation of the change failed
)

// The reasons for refusing a whole request.
const (
	BadRequest Code = "bad-request" // the body or a parameter could not be understood; nothing was changed
	NotFound   Code = "not-found"   // no such path
	BadMethod  Code = "bad-method"  // the path does not take this HTTP method
	TooLarge   Code = "too-large"   // the body is longer than MaxBody; nothing was changed
	Internal   Code = "internal"    // the fault is uvsd's; its log says more
)

// Error is the code itself: enough for a sentinel, callers wrap it with the circumstances.
func (c Code) Error() string { return string(c) }

// Error is a refusal as it goes over the wire.
type Error struct {
	// Code is the stable name of the reason.
	Code Code `json:"code"`
	// Message says for people what was tried, with what, and why it failed. One line, no final stop.
	Message string `json:"message"`
}

// Error returns the message, which names the circumstances already.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the code, so that errors.Is(err, ServiceExists) works on both sides of the socket.
func (e *Error) Unwrap() error { return e.Code }

// Errorf returns an Error with the given code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// AsError turns any error into its form on the wire: an *Error is taken as it is, an error that wraps a Code keeps it,
// everything else is Internal. It returns nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		if err.Error() == e.Message {
			return e
		}
		return &Error{Code: e.Code, Message: err.Error()}
	}
	if c := Code(""); errors.As(err, &c) {
		return &Error{Code: c, Message: err.Error()}
	}
	return &Error{Code: Internal, Message: err.Error()}
}
