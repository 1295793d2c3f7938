package main

import (
	"cmp"
	"slices"

	"uvs/control/api"
	"uvs/dataplane"
)

// drops lists the reasons that occurred, the most frequent first.
func drops(s *dataplane.Stats) []api.Drop {
	list := []api.Drop{}
	for v, n := range s.Verdicts {
		if v := dataplane.Verdict(v); v.Dropped() && n > 0 {
			list = append(list, api.Drop{Reason: v.String(), Count: n})
		}
	}
	slices.SortStableFunc(list, func(a, b api.Drop) int { return cmp.Compare(b.Count, a.Count) })
	return list
}
