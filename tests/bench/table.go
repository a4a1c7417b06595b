package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// printTable prints the median of each row and how it compares with the yardstick.
func printTable(w io.Writer, rows []load) {
	yard := 0.0
	for _, r := range rows {
		if r.yard {
			yard = median(r.results, func(x result) float64 { return x.cpu })
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\tserver CPU us/msg\tfrom\tto\tmsg/s\tto mosquitto\t")
	for _, r := range rows {
		mid := median(r.results, func(x result) float64 { return x.cpu })
		ratio := "-"
		if yard > 0 {
			ratio = fmt.Sprintf("%.2f", mid/yard)
		}
		low := slices.MinFunc(r.results, byCPU).cpu
		high := slices.MaxFunc(r.results, byCPU).cpu
		rate := median(r.results, func(x result) float64 { return x.rate })
		fmt.Fprintf(tw, "%s\t%.2f\t%.2f\t%.2f\t%.0f\t%s\t\n", r.name, mid, low, high, rate, ratio)
	}
	tw.Flush()
}

// printPaced prints what a message costs that comes alone, and how long it takes.
func printPaced(w io.Writer, rows []load) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\tserver CPU us/msg\tp50 us\tp99 us\tmsg/s\t")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%.0f\t%.0f\t%.0f\t%.0f\t\n", r.name, median(r.results, func(x result) float64 { return x.cpu }),
			median(r.results, func(x result) float64 { return x.p50 }), median(r.results, func(x result) float64 { return x.p99 }),
			median(r.results, func(x result) float64 { return x.rate }))
	}
	tw.Flush()
}

// printGrowth prints each row's ratio to the smallest of its kind.
func printGrowth(w io.Writer, rows []load) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "how cost grows\tserver CPU us/msg\tto the first\tmsg/s\t")
	first := 0.0
	for _, r := range rows {
		mid := median(r.results, func(x result) float64 { return x.cpu })
		if r.first {
			first = mid
		}
		fmt.Fprintf(tw, "%s\t%.2f\t%.2f\t%.0f\t\n", r.name, mid, mid/first, median(r.results, func(x result) float64 { return x.rate }))
	}
	tw.Flush()
}

func median(rs []result, of func(result) float64) float64 {
	v := make([]float64, len(rs))
	for i, r := range rs {
		v[i] = of(r)
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func byCPU(a, b result) int { return cmp.Compare(a.cpu, b.cpu) }
