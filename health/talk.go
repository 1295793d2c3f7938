package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
)

// talkBytes is how much a server may say in a protocol of lines and small messages before the probe gives up on it.
const talkBytes = 64 << 10

// errTimeout is how a server that said nothing in time is told of.
var errTimeout = fmt.Errorf("timed out%w", quiet{os.ErrDeadlineExceeded})

// errOthers is why a probe gives up that got maxOthers answers to other questions than its own.
var errOthers = errors.New("no answer among many messages")

// quiet is an error that a message doesn't show, but errors.Is finds.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

// talk is the one connection of a probe: reads and writes end with the probe's context, and what the server sends is counted,
// so that no server has a probe read for ever.
type talk struct {
	ctx  context.Context
	to   *Target
	raw  net.Conn      // what Dial gave
	conn net.Conn      // the same, or TLS over it
	r    *bufio.Reader // reads talk's own Read
	left int           // how many bytes the server may still send
	stop func() bool   // ends the watch over the context
	fin  bool          // the connection is closed in order

	recording sync.Mutex // a library may read and write at once
	closed    bool       // recording's: nothing is told any more
}

// readers are used again: a thousand probes a second would otherwise make four megabytes of garbage.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }}

// dial opens the probe's connection. network is "tcp" or "udp". Whoever calls it calls close.
func dial(ctx context.Context, to *Target, network string) (*talk, error) {
	conn, err := to.Dial(ctx, network)
	if err != nil {
		return nil, because("cannot connect", err)
	}
	t := &talk{ctx: ctx, to: to, raw: conn, conn: conn, left: talkBytes, r: readers.Get().(*bufio.Reader)}
	t.r.Reset(t)
	if d, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(d)
	}
	t.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })
	return t, nil
}

// bye says goodbye in the protocol's way, after which the connection is closed in order, so that the server has nothing to log.
func (t *talk) bye(b []byte) {
	_, err := t.Write(b)
	t.fin = err == nil
}

// close ends the connection, without TLS' farewell, for which a server could have us wait. Without a goodbye of the protocol it is
// reset: neither end has to remember it, which with thousands a second would be hundreds of thousands.
func (t *talk) close() {
	t.stop()
	if r, ok := t.raw.(interface{ SetLinger(seconds int) error }); ok && !t.fin {
		_ = r.SetLinger(0)
	}
	_ = t.raw.Close()
	t.recording.Lock()
	t.closed = true
	t.recording.Unlock()
	t.r.Reset(nil)
	readers.Put(t.r)
}

// Read implements io.Reader.
func (t *talk) Read(b []byte) (int, error) {
	if t.left <= 0 {
		return 0, errors.New("the server says more than any answer has")
	}
	n, err := t.conn.Read(b[:min(len(b), t.left)])
	t.left -= n
	t.record(false, b[:n])
	return n, err
}

// record tells who wants to know of what was sent or received.
func (t *talk) record(sent bool, b []byte) {
	if t.to.Record == nil || len(b) == 0 {
		return
	}
	t.recording.Lock()
	defer t.recording.Unlock()
	if !t.closed {
		t.to.Record(sent, b)
	}
}

// Write implements io.Writer.
func (t *talk) Write(b []byte) (int, error) {
	t.record(true, b)
	return t.conn.Write(b)
}

// say sends text.
func (t *talk) say(format string, a ...any) error {
	_, err := fmt.Fprintf(t, format, a...)
	if err != nil {
		return because("cannot send", err)
	}
	return nil
}

// line reads a line and returns it without its end. what says what is waited for.
func (t *talk) line(what string) (string, error) {
	b, err := t.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", fmt.Errorf("%s: a line of more than %d bytes", what, len(b))
	}
	if err != nil {
		return "", because("no "+what, err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// full reads exactly len(b) bytes.
func (t *talk) full(b []byte, what string) error {
	if _, err := io.ReadFull(t.r, b); err != nil {
		return because("no "+what, err)
	}
	return nil
}

// because says what failed and why in the words of an operator: without the names of system calls, and with the addresses
// left out, which whoever reads it knows.
func because(what string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		err = errTimeout
	case errors.As(err, &timeout) && timeout.Timeout() && !errors.Is(err, syscall.ETIMEDOUT):
		err = errTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("the server closed the connection%w", quiet{io.EOF})
	default:
		if text := err.Error(); printable(text) != text { // libraries quote what the server sent, all of it
			err = fmt.Errorf("%s%w", printable(text), quiet{err})
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// printable is what a server said, cut short and with control characters made visible, for a message.
func printable(s string) string {
	const most = 120
	cut := ""
	if len(s) > most {
		s, cut = s[:most], "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '.'
		}
		return r
	}, s) + cut
}
