package health

import (
	"context"
	"fmt"
)

// ICMP is the kind "icmp": an echo request (ping) to the real server's own address, whatever the forwarding method. It tells that
// the host is there, not that it serves.
type ICMP struct {
	// Size is the payload's length in bytes, from 8 on; a large one also tests the path's MTU. Default 56.
	Size int `json:"size,omitempty"`

	pinger *pinger // the process's, but in tests
}

// Kind implements Prober.
func (*ICMP) Kind() string { return "icmp" }

// DirectOnly implements DirectOnly.
func (*ICMP) DirectOnly() {}

// Prepare implements Prober.
func (c *ICMP) Prepare() error {
	if c.Size == 0 {
		c.Size = 56
	}
	if c.Size < 8 || c.Size > maxPingSize {
		return fmt.Errorf("size: %d is not from 8 to %d", c.Size, maxPingSize)
	}
	if c.pinger == nil {
		c.pinger = pings
	}
	return nil
}

// Probe implements Prober.
func (c *ICMP) Probe(ctx context.Context, to *Target) (string, error) {
	if err := c.pinger.echo(ctx, to.Server.Addr(), c.Size, to.Record); err != nil {
		return "", err
	}
	return "echo", nil
}
