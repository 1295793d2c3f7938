// Package bench measures uvs: its stages one by one (micro), and the whole director beside others in the lab (wire). It
// judges nothing: it prints medians, ratios and their spread, and beside them the goals of the project.
//
// Figures of one machine are compared in the same round alone, because a machine that others share drifts by more than
// what is to be found out: each round runs every subject, and what is reported is the median of the same-round ratios.
package bench
