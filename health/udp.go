package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// UDP is the kind "udp": a datagram is sent, and what comes back decides. A server whose host says by ICMP that the port, the
// protocol or the host is unreachable is down. Without an expected answer silence is as good as an answer: it says only that
// nobody objected.
type UDP struct {
	// Request is the datagram, with the escapes \r \n \t \0 \\ and \xHH; default empty.
	Request string `json:"request"`
	// Expect is what the answer must begin with, with the same escapes. Without it and match any answer, or none, is good.
	Expect string `json:"expect"`
	// Match is a regular expression (RE2) that the answer must match somewhere.
	Match string `json:"match"`
	// Wait is how long silence is listened to, without an expected answer, for an ICMP error to come; default half the
	// timeout, at most 500ms.
	Wait Duration `json:"wait"`

	request, expect []byte
	match           *regexp.Regexp
}

const (
	maxDatagram = 65507
	maxUDPWait  = 500 * time.Millisecond
	maxOthers   = 100
)

// datagrams are buffers that probes take in turn.
var datagrams = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// Kind implements Prober.
func (*UDP) Kind() string { return "udp" }

// Prepare implements Prober.
func (u *UDP) Prepare() (err error) {
	if u.request, err = unescape(u.Request); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	if u.expect, err = unescape(u.Expect); err != nil {
		return fmt.Errorf("expect: %w", err)
	}
	if u.Match != "" {
		if u.match, err = regexp.Compile(u.Match); err != nil {
			return fmt.Errorf("match: %w", err)
		}
	}
	switch {
	case len(u.request) > maxDatagram:
		return fmt.Errorf("request: %d bytes, a datagram has at most %d", len(u.request), maxDatagram)
	case u.Wait < 0:
		return fmt.Errorf("wait: %v is negative", u.Wait)
	}
	return nil
}

// expects says that an answer is wanted.
func (u *UDP) expects() bool { return len(u.expect) > 0 || u.match != nil }

// Probe implements Prober.
func (u *UDP) Probe(ctx context.Context, to *Target) (string, error) {
	c, err := to.Dial(ctx, "udp")
	if err != nil {
		return "", err
	}
	defer c.Close()
	deadline, limited := ctx.Deadline()
	if !u.expects() {
		deadline, limited = u.patience(time.Now(), deadline, limited), true
	}
	if limited {
		if err := c.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write(u.request); err != nil {
		return "", unreachable(err)
	}
	to.record(true, u.request)
	buffer := datagrams.Get().(*[64 << 10]byte)
	defer datagrams.Put(buffer)
	answer := buffer[:]
	var other int
	for {
		n, err := c.Read(answer)
		switch {
		case err != nil && isTimeout(err) && !u.expects():
			return "no objection", nil
		case err != nil && isTimeout(err) && other > 0:
			return "", fmt.Errorf("none of %d answers is the expected one", other)
		case err != nil:
			return "", unreachable(err)
		}
		to.record(false, answer[:n])
		if u.good(answer[:n]) {
			return fmt.Sprintf("%d bytes", n), nil
		}
		// Perhaps it is the answer to an earlier question: the one that is waited for may come yet. A flood isn't waited for.
		if other++; other == maxOthers {
			return "", fmt.Errorf("none of %d answers is the expected one", other)
		}
	}
}

// patience is until when silence is listened to.
func (u *UDP) patience(now, deadline time.Time, limited bool) time.Time {
	wait := time.Duration(u.Wait)
	if wait == 0 {
		wait = maxUDPWait
		if limited {
			wait = min(wait, deadline.Sub(now)/2)
		}
	}
	if end := now.Add(wait); !limited || end.Before(deadline) {
		return end
	}
	return deadline.Add(-(deadline.Sub(now) / 10)) // time is left to say that nobody objected
}

func (u *UDP) good(answer []byte) bool {
	return bytes.HasPrefix(answer, u.expect) && (u.match == nil || u.match.Match(answer))
}

// unreachable says what an ICMP error meant that the socket was told of.
func unreachable(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("port unreachable")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EPROTO):
		return errors.New("host unreachable")
	}
	return err
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}
