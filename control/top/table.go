package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"uvs/control/api"
)

// column is one of a table.
type column struct {
	title string
	width int // least; the first column takes what is left
	// rank says which go where the screen is narrow: the highest first. 0 always stays.
	rank int
	text bool // flush left, and sorted as text
}

// row is a line of a table.
type row struct {
	cells []string
	keys  []float64 // what numbers are sorted by, by column
	addr  string    // what the first column is sorted by
	of    subject
	inner bool // a server below its service
	dim   bool // quiesced
	warn  bool // overloaded
}

var mainColumns = []column{
	{title: "SERVICE, SERVER", width: 24, text: true},
	{title: "HOW", width: 6, rank: 4, text: true},
	{title: "WEIGHT", width: 6, rank: 3},
	{title: "ACTIVE", width: 6, rank: 0},
	{title: "INACT", width: 6, rank: 2},
	{title: "CONN/s", width: 6, rank: 0},
	{title: "IN pkt/s", width: 8, rank: 5},
	{title: "OUT pkt/s", width: 9, rank: 6},
	{title: "IN B/s", width: 6, rank: 1},
	{title: "OUT B/s", width: 7, rank: 1},
	{title: "CONNS", width: 7, rank: 7},
}

var connColumns = []column{
	{title: "CLIENT", width: 22, text: true},
	{title: "SERVER", width: 22, rank: 2, text: true},
	{title: "STATE", width: 12, rank: 0, text: true},
	{title: "EXPIRES", width: 7, rank: 1},
	{title: "PROTO", width: 8, rank: 3, text: true},
}

// unsorted is the place of no column: rows are in the director's order.
const unsorted = -1

// order sorts rows by a column, numbers the largest first, texts in order.
func order(rows []row, columns []column, by int, reverse bool) {
	if by == unsorted {
		if reverse {
			slices.Reverse(rows)
		}
		return
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		var c int
		switch {
		case by == 0:
			c = strings.Compare(a.addr, b.addr)
		case columns[by].text:
			c = strings.Compare(a.cells[by], b.cells[by])
		default:
			c = cmp.Compare(b.keys[by], a.keys[by])
		}
		if reverse {
			return -c
		}
		return c
	})
}

// serviceRows are the rows of services and, where servers are wanted, of their servers below them.
func serviceRows(services []api.Service, filter string, servers bool, by int, reverse bool) (rows []row) {
	type group struct {
		head row
		rest []row
	}
	var groups []group
	for i := range services {
		s := &services[i]
		g := group{head: serviceRow(s)}
		whole := matches(filter, g.head.cells[0], g.head.cells[1])
		for j := range s.Servers {
			r := serverRow(s, &s.Servers[j])
			if whole || matches(filter, r.cells[0], r.cells[1]) {
				g.rest = append(g.rest, r)
			}
		}
		if whole || len(g.rest) > 0 {
			groups = append(groups, g)
		}
	}
	heads := make([]row, len(groups))
	place := make(map[string]int, len(groups))
	for i := range groups {
		heads[i] = groups[i].head
		place[heads[i].cells[0]] = i
	}
	order(heads, mainColumns, by, reverse)
	for _, head := range heads {
		rows = append(rows, head)
		if rest := groups[place[head.cells[0]]].rest; servers {
			order(rest, mainColumns, by, reverse)
			rows = append(rows, rest...)
		}
	}
	return rows
}

func serviceRow(s *api.Service) row {
	var active, inactive uint64
	weight, dim := 0, true
	for i := range s.Servers {
		active += s.Servers[i].Active
		inactive += s.Servers[i].Inactive
		weight += s.Servers[i].Weight()
		dim = dim && s.Servers[i].Weight() == 0
	}
	how := s.Config.Scheduler
	if s.Config.PersistenceSeconds > 0 {
		how += " P"
	}
	r := numbers(named(s.ServiceKey.String(), s.Label), how, weight, active, inactive, &s.Rates, &s.Stats)
	r.of, r.dim = subject{service: s.ServiceKey}, dim
	r.addr = fmt.Sprintf("%x %05d %s %010d", s.Address.As16(), s.Port, s.Protocol, s.FWMark)
	return r
}

func serverRow(s *api.Service, rs *api.Server) row {
	r := numbers("  "+named(rs.ServerKey.String(), rs.Label), rs.Config.Method, rs.Weight(), rs.Active, rs.Inactive, &rs.Rates, &rs.Stats)
	key := rs.ServerKey
	r.of, r.inner, r.dim = subject{s.ServiceKey, &key}, true, rs.Weight() == 0
	r.warn = rs.Config.Upper > 0 && rs.Active+rs.Inactive >= uint64(rs.Config.Upper)
	r.addr = fmt.Sprintf("%x %05d", rs.Address.As16(), rs.Port)
	return r
}

// named puts the name of a service or server behind its address.
func named(address, label string) string {
	if label == "" {
		return address
	}
	return address + " " + label
}

func numbers(name, how string, weight int, active, inactive uint64, rates *api.Rates, stats *api.Stats) row {
	all := []uint64{uint64(weight), active, inactive, rates.Conns, rates.InPackets, rates.OutPackets, rates.InBytes, rates.OutBytes, stats.Conns}
	r := row{cells: []string{name, how}, keys: []float64{0, 0}}
	for _, n := range all {
		r.cells = append(r.cells, short(n))
		r.keys = append(r.keys, float64(n))
	}
	return r
}

// short writes a number in five characters or less, from 100,000 on with a unit of thousands.
func short(n uint64) string {
	if n < 100_000 {
		return fmt.Sprint(n)
	}
	f := float64(n)
	for _, unit := range "kMGTPE" {
		f /= 1000
		switch {
		case f < 99.95:
			return fmt.Sprintf("%.1f%c", f, unit)
		case f < 999.5:
			return fmt.Sprintf("%.0f%c", f, unit)
		}
	}
	return fmt.Sprint(n)
}

// connCells are the cells of a connection.
func connCells(c *api.Connection) []string {
	proto := c.Protocol
	if c.Template {
		proto = "template"
	}
	left := c.ExpiresSeconds
	return []string{c.Client.String(), c.Server.String(), c.State, fmt.Sprintf("%d:%02d", left/60, left%60), proto}
}

func connRows(conns []api.Connection, filter string, by int, reverse bool) []row {
	rows := make([]row, 0, len(conns))
	for i := range conns {
		c := &conns[i]
		cells := connCells(c)
		if !matches(filter, cells...) {
			continue // met the filter that there was when it was asked for
		}
		rows = append(rows, row{
			cells: cells, keys: []float64{0, 0, 0, float64(c.ExpiresSeconds), 0},
			addr: fmt.Sprintf("%x %05d", c.Client.Addr().As16(), c.Client.Port()),
		})
	}
	order(rows, connColumns, by, reverse)
	return rows
}

// fit returns the columns that go on a screen of that width, and how wide the first one is. Of the others each takes its width
// and a space.
func fit(columns []column, width int) (kept []int, first int) {
	for i := range columns {
		kept = append(kept, i)
	}
	for {
		used, worst := 0, 0
		for _, i := range kept[1:] {
			used += columns[i].width + 1
			if columns[i].rank > columns[kept[worst]].rank {
				worst = slices.Index(kept, i)
			}
		}
		if first = width - used; first >= columns[0].width || worst == 0 {
			break
		}
		kept = slices.Delete(kept, worst, worst+1)
	}
	for first < min(12, width) && len(kept) > 1 { // so narrow that even what always stays goes
		first += columns[kept[len(kept)-1]].width + 1
		kept = kept[:len(kept)-1]
	}
	return kept, max(first, 0)
}
