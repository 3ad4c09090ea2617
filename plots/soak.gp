# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# soak.gp - memory, sockets and connections over a soak: gnuplot -e "csv='...'; caption='...'; out='...'" plots/soak.gp
if (!exists("caption")) caption = ""
set datafile separator ','
set terminal pngcairo size 1200,900 font 'sans,11' noenhanced
set output out
set label 1 caption noenhanced at screen 0.01, screen 0.015 font 'sans,8' textcolor rgb '#666666'
set multiplot layout 2,1 title 'Soak: all modules under mixed traffic' margins 0.07, 0.8, 0.09, 0.93 spacing 0.1
set key outside right top
set grid ytics lc rgb '#dddddd'
set xlabel 'time, s'
set ylabel 'memory, MiB'
set yrange [0:*]
mib = 1048576.0
plot csv using 'seconds':(column('unreclaimable')/mib) with lines lw 2 title 'SUnreclaim', \
     '' using 'seconds':(column('vmalloc')/mib) with lines lw 2 title 'VmallocUsed', \
     '' using 'seconds':(column('kernel_stack')/mib) with lines lw 2 title 'KernelStack', \
     '' using 'seconds':(column('percpu')/mib) with lines lw 2 title 'Percpu', \
     '' using 'seconds':(column('pages')/mib) with lines lw 2 title 'other pages'
set ylabel 'number, log scale'
set yrange [0.9:*]
set logscale y
plot csv using 'seconds':(column('sockets')+0.1) with lines lw 1 title 'TCP sockets', \
     '' using 'seconds':(column('time_wait')+0.1) with lines lw 1 title 'TIME-WAIT', \
     '' using 'seconds':(column('conns')+0.1) with lines lw 1 title 'connections served', \
     '' using 'seconds':(column('socket_objects')+0.1) with lines lw 1 title 'slabs: TCP, TCPv6', \
     '' using 'seconds':(column('socket_inodes')+0.1) with lines lw 1 title 'slab: sock_inode_cache', \
     '' using 'seconds':(column('threads')+0.1) with lines lw 2 title 'threads'
unset multiplot
