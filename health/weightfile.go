package health

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// WeightFile is the kind "file": what share of its weight a server gets stands in a file on the director, which scripts write. A
// line has the server's address, with a port or without, and a percentage; # begins a comment. 0 is no new connections. A server
// that isn't in the file gets all of its weight, and while the file can't be read each keeps what it had. Write another
// file and rename it: one that is being written may be read half.
type WeightFile struct {
	// Path is the file's name, from / on. Required.
	Path string `json:"path,omitempty"`
	Weighing

	reading sync.Mutex
	as      fileState // guarded by reading, as is the next
	shares  map[netip.AddrPort]float64
}

// fileState tells whether a file is another than before.
type fileState struct {
	mod  time.Time
	size int64
}

const maxWeightFile = 4 << 20

// Kind implements Prober.
func (*WeightFile) Kind() string { return "file" }

// DirectOnly implements DirectOnly.
func (*WeightFile) DirectOnly() {}

// Prepare implements Prober.
func (f *WeightFile) Prepare() error {
	if !filepath.IsAbs(f.Path) {
		return fmt.Errorf("path: %q: it must begin with /", f.Path)
	}
	return f.prepareWeighing()
}

// Probe implements Prober.
func (f *WeightFile) Probe(_ context.Context, to *Target) (string, error) {
	shares, err := f.read()
	if err != nil {
		if share, known := f.weighAsBefore(to); known {
			return fmt.Sprintf("%v: %s as before", err, percent(share)), nil
		}
		return err.Error(), nil
	}
	asked, ok := shares[to.Server]
	if !ok {
		asked, ok = shares[netip.AddrPortFrom(to.Server.Addr(), 0)]
	}
	if !ok {
		f.weigh(to, 1)
		return "not in the file", nil
	}
	return fmt.Sprintf("%s asked for, gets %s", percent(asked), percent(f.weigh(to, asked))), nil
}

// read returns what the file says, which is read when it has changed.
func (f *WeightFile) read() (map[netip.AddrPort]float64, error) {
	f.reading.Lock()
	defer f.reading.Unlock()
	info, err := os.Stat(f.Path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", f.Path)
	}
	as := fileState{info.ModTime(), info.Size()}
	if as == f.as && f.shares != nil {
		return f.shares, nil
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxWeightFile+1))
	if err != nil {
		return nil, err
	}
	shares, err := parseWeights(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	f.as, f.shares = as, shares
	return shares, nil
}

// parseWeights reads a weight file. A server without a port has port 0.
func parseWeights(text []byte) (map[netip.AddrPort]float64, error) {
	if len(text) > maxWeightFile {
		return nil, errors.New("it is too long")
	}
	shares := map[netip.AddrPort]float64{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 {
			return nil, fmt.Errorf("line %d: an address and a percentage are wanted", n)
		}
		server, err := netip.ParseAddrPort(words[0])
		if err != nil {
			addr, err := netip.ParseAddr(strings.Trim(words[0], "[]"))
			if err != nil {
				return nil, fmt.Errorf("line %d: %q is no address", n, shorten60(words[0]))
			}
			server = netip.AddrPortFrom(addr, 0)
		}
		v, err := strconv.ParseUint(strings.TrimSuffix(words[1], "%"), 10, 31)
		if err != nil {
			return nil, fmt.Errorf("line %d: %q is no percentage from 0 on", n, shorten60(words[1]))
		}
		shares[netip.AddrPortFrom(server.Addr().Unmap(), server.Port())] = min(float64(v), maxShare) / 100
	}
	return shares, lines.Err()
}

// shorten60 is the beginning of a text, for messages.
func shorten60(s string) string { return strings.ToValidUTF8(s[:min(len(s), 60)], "?") }
