# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# latencies.gp - the distributions of latencies that "make bench" leaves, one a server, in one picture.
# gnuplot -e "dir='output/bench'; caption='...'; out='latency.png'" plots/latencies.gp
if (!exists("caption")) caption = ""
set terminal pngcairo size 1100,620 font "sans,11"
set output out
set datafile separator ","
set title "Latency of 64-byte echoes: closed loop, 32 connections,\none client thread that verifies, one CPU for all" font "sans,14"
set xlabel "latency, thousand instructions"
set ylabel "share of messages answered within it, %"
set yrange [0:100]
set ytics 10
set grid back lc rgb "#dddddd"
set border 3
set tics nomirror
set key outside right top vertical samplen 2 spacing 1.3 noenhanced
set label 1 caption noenhanced at screen 0.01, screen 0.035 font "sans,8" textcolor rgb "#666666"
set bmargin at screen 0.16
set logscale x
set xrange [350:1500] # but for those who serve some at once and others late
set xtics (400, 500, 600, 700, 800, 900, "1,000" 1000, "1,200" 1200, "1,500" 1500)

servers = "kecho;kecho worker;kecho worker bench=1;epoll;io_uring;splice;sockmap;threads;kthreads"
colours = "#0072b2 #56b4e9 #009e73 #d55e00 #cc79a7 #8b1a1a #e69f00 #999999 #555555"
# One lies under another.
dash(i) = i == 3 ? 2 : 1
name(i) = system(sprintf("echo '%s' | cut -d';' -f%d", servers, i))
file(i) = system(sprintf("echo '%s/echo-latency-%s.csv' | tr ' ' '-'", dir, name(i)))
there(i) = int(system(sprintf("test -s '%s'; echo $?", file(i)))) == 0
plot for [i=1:9] (there(i) ? file(i) : "/dev/null") using ($1/1000):($3*100) skip 1 with steps lw 2.2 dt dash(i) lc rgb word(colours, i) title (there(i) ? name(i) : "")
