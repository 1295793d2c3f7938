package health

import (
	"context"
	"fmt"
)

// TCP is the kind "tcp": a server can serve if it accepts a connection, which is reset then.
type TCP struct{}

// Kind implements Prober.
func (*TCP) Kind() string { return "tcp" }

// Prepare implements Prober.
func (*TCP) Prepare() error { return nil }

// Probe implements Prober.
func (*TCP) Probe(ctx context.Context, to *Target) (string, error) {
	c, err := to.Dial(ctx, "tcp")
	if err != nil {
		return "", err
	}
	if r, ok := c.(interface{ SetLinger(seconds int) error }); ok {
		_ = r.SetLinger(0)
	}
	if err := c.Close(); err != nil {
		return "", fmt.Errorf("connected, but: %w", err)
	}
	return "connected", nil
}
