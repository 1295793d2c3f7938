package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says what an agent is like.
type Config struct {
	// Importance weighs the parts of the load.
	Importance Importance
	// Least is the least percentage that load alone leads to. 0 means 1.
	Least int
	// Drain is the administrator's switch.
	Drain *Switch
	// Directors are the networks that may ask; none means that everybody may.
	Directors []netip.Prefix
	// Proc is the host's /proc, and CPUs how many it has. Default: this host's.
	Proc fs.FS
	CPUs int
	// Log is told what happens, in lines. nil: nobody.
	Log func(format string, args ...any)
}

// Agent answers the agent-check protocol.
type Agent struct {
	cfg Config

	mu      sync.Mutex
	percent int       // guarded by mu, as are the next two
	read    time.Time // when percent was computed
	failed  bool      // that it cannot be was said
}

const (
	keepLoad = 250 * time.Millisecond // so that who asks often costs nothing
	// inTime is how long a director may take to fetch the answer, and then to close.
	inTime = 2 * time.Second
	// maxConns are those served at once. More wait in the listener's queue, for at most inTime.
	maxConns = 64
)

// New returns an agent.
func New(cfg Config) *Agent {
	if cfg.Proc == nil {
		cfg.Proc = os.DirFS("/proc")
	}
	if cfg.CPUs == 0 {
		cfg.CPUs = CPUs()
	}
	if cfg.Drain == nil {
		cfg.Drain = new(Switch)
	}
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	cfg.Least = max(cfg.Least, 1)
	return &Agent{cfg: cfg}
}

// Reply is what the agent says now.
func (a *Agent) Reply() Reply {
	r := Reply{Percent: a.share(), MaxConn: NotSaid}
	a.cfg.Drain.fill(&r)
	return r
}

// share is the percentage by the host's load, NotSaid if the host doesn't tell.
func (a *Agent) share() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if !a.read.IsZero() && now.Sub(a.read) < keepLoad {
		return a.percent
	}
	a.read = now
	load, err := ReadLoad(a.cfg.Proc, a.cfg.CPUs)
	if err != nil {
		if a.percent = NotSaid; !a.failed {
			a.failed = true
			a.cfg.Log("the load cannot be read, so that no weight is sent: %v", err)
		}
		return NotSaid
	}
	a.failed = false
	a.percent = max(a.cfg.Importance.Percent(load), a.cfg.Least)
	return a.percent
}

// Serve answers directors on l until ctx ends, and closes l. Each connection gets one line, whatever it sends.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	return serve(ctx, l, func(c net.Conn) {
		if !a.allows(c.RemoteAddr()) {
			return
		}
		if _, err := io.WriteString(c, a.Reply().String()+"\n"); err != nil {
			return
		}
		// What the director sent (agent-send) must be read: closing with unread bytes sends a reset, which may overtake the line.
		if t, ok := c.(interface{ CloseWrite() error }); ok && t.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, c, 1<<16)
		}
	})
}

// allows says that a director at that address is answered.
func (a *Agent) allows(remote net.Addr) bool {
	if len(a.cfg.Directors) == 0 {
		return true
	}
	from, err := netip.ParseAddrPort(remote.String())
	return err == nil && slices.ContainsFunc(a.cfg.Directors, func(p netip.Prefix) bool {
		return p.Contains(from.Addr().Unmap().WithZone(""))
	})
}

// command is what Control understands: one line, such as "drain for the update"; the answer is one line as well.
func (a *Agent) command(line string) string {
	if strings.TrimSpace(line) != "status" {
		if err := a.cfg.Drain.Set(line); err != nil {
			return "error: " + err.Error()
		}
		a.cfg.Log("told to %s", printable(line))
	}
	return a.Reply().String()
}

// Control takes commands on l, a Unix socket, until ctx ends, and closes l: drain, maint, down, each perhaps with a reason, ready,
// status. The answer is what the agent says from now on, or begins with "error:".
func (a *Agent) Control(ctx context.Context, l net.Listener) error {
	return serve(ctx, l, func(c net.Conn) {
		line, err := bufio.NewReader(io.LimitReader(c, MaxLine)).ReadString('\n')
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, a.command(line)+"\n")
	})
}

// serve runs handle for each connection, some at a time, none for longer than inTime.
func serve(ctx context.Context, l net.Listener, handle func(net.Conn)) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors, or the connection is gone already
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		slots <- struct{}{}
		running.Go(func() {
			defer func() { c.Close(); <-slots }()
			_ = c.SetDeadline(time.Now().Add(inTime))
			handle(c)
		})
	}
}

// Tell sends a command to the agent that has the Unix socket, and returns its answer.
func Tell(ctx context.Context, socket, command string) (string, error) {
	if strings.ContainsAny(command, "\r\n") {
		return "", errors.New("a command is one line")
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return "", fmt.Errorf("is uvs-agent running? %w", err)
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(io.LimitReader(c, 2*MaxLine)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("no answer from uvs-agent: %w", err)
	}
	answer = strings.TrimSuffix(answer, "\n")
	if reason, refused := strings.CutPrefix(answer, "error: "); refused {
		return "", errors.New(reason)
	}
	return answer, nil
}
