package ipvsadm

import (
	"bufio"
	"context"
	"io"
	"path/filepath"
	"strings"

	"uvs/control/api"
)

// saveScript is ipvsadm-save: -S, with -n where it stands among the arguments.
func (p *Program) saveScript(ctx context.Context, args []string) (exit int) {
	numeric := false
	for _, a := range args {
		switch {
		case a == "-n":
			numeric = true
		case strings.HasPrefix(a, "-"):
			io.WriteString(p.Stderr, filepath.Base(p.Name)+": writes the table to standard output, for ipvsadm-restore\n"+
				"   -n   addresses and ports as numbers\n")
			return 1
		}
	}
	return p.with(ctx, func(r *run) error { return r.save(numeric, false) })
}

// restoreScript is ipvsadm-restore: -C, then -R without the lines that begin with "#". Both are one change.
func (p *Program) restoreScript(ctx context.Context) (exit int) {
	rules := &commentless{lines: bufio.NewReader(p.Stdin)}
	return p.with(ctx, func(r *run) error {
		return r.restore(rules, []pending{{cmd: cmdFlush, op: &api.Op{Kind: api.Flush}}})
	})
}

// commentless reads lines but those that begin with "#".
type commentless struct {
	lines *bufio.Reader
	rest  string // of the line in hand
}

// Read implements io.Reader.
func (c *commentless) Read(b []byte) (int, error) {
	for c.rest == "" {
		line, err := c.lines.ReadString('\n')
		if line == "" {
			return 0, err
		}
		if line[0] != '#' {
			c.rest = line
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
