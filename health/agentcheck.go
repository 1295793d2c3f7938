package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"uvs/health/agent"
)

// AgentCheck is the kind "agent": it asks a program on the real server how much of its weight it can take, by HAProxy's agent-check
// protocol: uvs-agent, or any other of HAProxy's agents. The server is down when the agent says down, stopped, fail or
// maint, and takes no new connections when it says drain or 0%. An agent that doesn't answer, or not to the point, says nothing
// about the server, which keeps what it had: another check is to find out whether it serves. The port is 9777 unless set.
type AgentCheck struct {
	// Send is sent to the agent first; \r, \n and the like are understood. An agent seldom wants anything.
	Send string `json:"send,omitempty"`
	// Required makes an agent that doesn't answer a reason for the server to be down.
	Required bool `json:"required,omitempty"`
	Weighing

	send []byte
}

// DefaultAgentPort is uvs-agent's port.
const DefaultAgentPort = 9777

// Kind implements Prober.
func (*AgentCheck) Kind() string { return "agent" }

// DirectOnly implements DirectOnly.
func (*AgentCheck) DirectOnly() {}

// DefaultPort implements PortOfItsOwn.
func (*AgentCheck) DefaultPort() uint16 { return DefaultAgentPort }

// Prepare implements Prober.
func (a *AgentCheck) Prepare() (err error) {
	if a.send, err = unescape(a.Send); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return a.prepareWeighing()
}

// Probe implements Prober.
func (a *AgentCheck) Probe(ctx context.Context, to *Target) (string, error) {
	line, err := a.ask(ctx, to)
	var r agent.Reply
	if err == nil {
		r, err = agent.Parse(line)
	}
	switch share, known := 1.0, false; {
	case err != nil && a.Required:
		return "", err
	case err != nil:
		if share, known = a.weighAsBefore(to); known {
			return fmt.Sprintf("no word from the agent (%v): %s as before", err, percent(share)), nil
		}
		return fmt.Sprintf("no word from the agent: %v", err), nil
	}
	switch {
	case r.State == agent.Down || r.Admin == agent.Maint:
		return "", fmt.Errorf("the agent says %s", r)
	case r.Admin == agent.Drain:
		a.weigh(to, 0)
	case r.Percent != agent.NotSaid:
		share := a.weigh(to, float64(r.Percent)/100)
		return fmt.Sprintf("%s, gets %s", r, percent(share)), nil
	case r.Admin == agent.Ready:
		if share, known := a.weighAsBefore(to); !known || share == 0 {
			a.weigh(to, 1) // a drain is over
		}
	default:
		a.weighAsBefore(to)
	}
	return r.String(), nil
}

// ask is the exchange: one line, or what comes until the agent closes.
func (a *AgentCheck) ask(ctx context.Context, to *Target) ([]byte, error) {
	c, err := to.Dial(ctx, "tcp")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if len(a.send) > 0 {
		to.record(true, a.send)
		if _, err := c.Write(a.send); err != nil {
			return nil, err
		}
	}
	line, err := readLine(c, agent.MaxLine)
	to.record(false, line)
	if err != nil && len(line) == 0 {
		if errors.Is(err, io.EOF) {
			err = errors.New("the agent closed without a word")
		}
		return nil, err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return line, nil
}

// readLine reads up to the end of the line, or most bytes.
func readLine(c net.Conn, most int) ([]byte, error) {
	line := make([]byte, 0, most)
	for len(line) < most {
		n, err := c.Read(line[len(line):most])
		for _, b := range line[len(line) : len(line)+n] {
			line = append(line, b)
			if b == '\n' {
				return line, nil
			}
		}
		if err != nil {
			return line, err
		}
	}
	return line, nil
}
