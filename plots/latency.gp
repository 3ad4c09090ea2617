# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# latency.gp - two latency distributions as "bench --hist" writes them, in one picture.
# gnuplot -e "out='a.png'; first='a.csv'; first_name='A'; second='b.csv'; second_name='B'; caption='...'" plots/latency.gp
if (!exists("caption")) caption = ""
if (!exists("unit")) unit = "thousand instructions"

set terminal pngcairo size 1000,620 font "sans,11"
set output out
set datafile separator ","
set label 1 caption noenhanced at screen 0.01, screen 0.035 font "sans,8" textcolor rgb "#666666"
set bmargin at screen 0.15
set title "Latency of 64-byte echoes: closed loop, 32 connections, one client thread that verifies, one CPU for all" font "sans,14"
set xlabel "latency, ".unit
set ylabel "share of messages answered within it, %"
set yrange [0:100]
set ytics 10
set grid back lc rgb "#dddddd"
set border 3
set tics nomirror
set key outside top center horizontal samplen 3
set style line 1 lc rgb "#0072b2" lw 2.5
set style line 2 lc rgb "#d55e00" lw 2.5

stats first using ($1/1000):($3*100) nooutput name "A"
stats second using ($1/1000):($3*100) nooutput name "B"
lo = A_min_x < B_min_x ? A_min_x : B_min_x
hi = A_max_x > B_max_x ? A_max_x : B_max_x
set logscale x
set xrange [lo*0.9:hi*1.1]
set xtics (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)

plot first using ($1/1000):($3*100) skip 1 with steps ls 1 title first_name, \
     second using ($1/1000):($3*100) skip 1 with steps ls 2 title second_name
