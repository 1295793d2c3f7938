package sim

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// trace is a CSV file of connections. Columns that it doesn't have are nil.
type trace struct {
	time   []float64 // since the first
	demand []float64
	client []int32 // numbers in the order in which names come up
	dest   []int32

	clients, dests int
}

// opener returns a function that reads traces by their names relative to a directory, each once.
func opener(dir string) func(string) (*trace, error) {
	known := map[string]*trace{}
	return func(name string) (*trace, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		if t := known[name]; t != nil {
			return t, nil
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		t, err := readTrace(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		known[name] = t
		return t, nil
	}
}

// readTrace reads a trace whose first line names its columns. Errors have line and column.
func readTrace(f io.Reader) (*trace, error) {
	r := csv.NewReader(bufio.NewReader(f))
	r.ReuseRecord, r.TrimLeadingSpace, r.Comment = true, true, '#'
	head, err := r.Read()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("line 1: no names of columns")
		}
		return nil, err
	}
	t := new(trace)
	columns := slices.Clone(head)
	for i, name := range columns {
		if !slices.Contains([]string{"time", "demand", "client", "destination"}, name) {
			line, column := r.FieldPos(i)
			return nil, fmt.Errorf("line %d, column %d: the columns are time, demand, client and destination, not %q", line, column, name)
		}
		if slices.Index(columns, name) != i {
			line, column := r.FieldPos(i)
			return nil, fmt.Errorf("line %d, column %d: a second column %q", line, column, name)
		}
	}
	names := [2]map[string]int32{{}, {}}
	number := func(of map[string]int32, name string) int32 {
		n, ok := of[name]
		if !ok {
			n = int32(len(of))
			of[strings.Clone(name)] = n
		}
		return n
	}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		for i, text := range record {
			fail := func(format string, args ...any) error {
				line, column := r.FieldPos(i)
				return fmt.Errorf("line %d, column %d: %s", line, column, fmt.Sprintf(format, args...))
			}
			switch columns[i] {
			case "client":
				t.client = append(t.client, number(names[0], text))
				continue
			case "destination":
				t.dest = append(t.dest, number(names[1], text))
				continue
			}
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fail("%q is no number of seconds", text)
			}
			if columns[i] == "demand" {
				t.demand = append(t.demand, v)
				continue
			}
			if n := len(t.time); n > 0 && v < t.time[n-1] {
				return nil, fail("%q is before the connection above", text)
			}
			t.time = append(t.time, v)
		}
	}
	if len(t.time)+len(t.demand) == 0 {
		return nil, errors.New("no connections")
	}
	t.clients, t.dests = len(names[0]), len(names[1])
	for i := len(t.time) - 1; i >= 0; i-- {
		t.time[i] -= t.time[0]
	}
	return t, nil
}
